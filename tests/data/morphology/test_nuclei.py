"""Nuclei of slides: which cells are measured, and which can be learned from."""

import numpy as np
import pytest

from spatiagraph.data import make_tissue, measure_morphology, measure_nuclei, read_nuclei
from spatiagraph.data.loader import inside_image, read_crops
from spatiagraph.data.recipe import Crop

WINDOW = {"crop": Crop(13.6, 16)}
WIDE = Crop(70, 32)


@pytest.fixture(scope="module")
def tissue():
    return make_tissue(200, num_genes=20, image="dapi", seed=0)


def test_rows_are_those_of_the_crops_and_nan_beyond_the_image(tissue):
    table = measure_nuclei(tissue, WIDE, chunk_size=64)
    assert table.index.equals(tissue.adata.obs_names)
    inside = inside_image(tissue, WIDE)
    assert 0 < (~inside).sum() < len(inside)
    assert table[~inside].isna().all(axis=None)
    crops = read_crops(tissue, np.flatnonzero(inside), WIDE)
    expected = measure_morphology(crops, mpp=70 / 32, component="center")
    np.testing.assert_array_equal(table[inside], expected)


def test_only_those_asked_for_are_measured(tissue):
    among = np.arange(tissue.num_cells) % 3 == 0
    table = measure_nuclei(tissue, among=among, **WINDOW)
    assert table[~among].isna().all(axis=None)
    assert table[among].equals(measure_nuclei(tissue, **WINDOW)[among])


def test_crops_come_with_their_own_features(tissue):
    other = make_tissue(150, num_genes=20, image="dapi", seed=1)
    other.slide_id = "other"
    slides = [tissue, other]
    features = {s.slide_id: measure_nuclei(s, **WINDOW) for s in slides}
    crops, table = read_nuclei(slides, features, max_cells=90, **WINDOW)
    assert crops.shape == (90, 1, 16, 16)
    assert len(table) == 90
    again = measure_morphology(crops, mpp=13.6 / 16, component="center")
    np.testing.assert_allclose(again, table)
    assert not table.equals(read_nuclei(slides, features, max_cells=90, seed=1, **WINDOW)[1])
    everything = read_nuclei(slides, features, **WINDOW)[1]
    assert len(everything) == sum(t.notna().all(axis=1).sum() for t in features.values())


def test_a_slide_with_nothing_to_measure_is_refused(tissue):
    nothing = measure_nuclei(tissue, among=np.zeros(tissue.num_cells, bool), **WINDOW)
    with pytest.raises(ValueError, match="nuclei that can be measured"):
        read_nuclei([tissue], {tissue.slide_id: nothing}, **WINDOW)
