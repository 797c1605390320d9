"""``spatiagraph morphology``: nuclei in a table, and a network that measures them."""

import numpy as np
import pandas as pd
import pytest

from spatiagraph.data import MORPHOLOGY, make_tissue, measure_nuclei, write
from spatiagraph.data.recipe import Crop
from spatiagraph.nn import MorphologyProfile

QUICK = ["--size-px", 16, "--epochs", 2, "--max-cells", 100, "--accelerator", "cpu"]


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A slide with an image, as a file; its name has a space."""
    pytest.importorskip("spatialdata")
    path = tmp_path_factory.mktemp("morphology") / "left half.zarr"
    tissue = make_tissue(300, num_types=3, num_genes=40, image="dapi", seed=0)
    tissue.slide_id = "left half"
    return write(tissue, path)


@pytest.fixture(scope="module")
def made(run, slide):
    """What the command wrote, and said."""
    out = slide.parent / "out"
    done = run("morphology", slide, *QUICK, "--out", out)
    assert done.exit_code == 0, done.output
    return out, done.output


def test_every_cell_has_its_row_and_the_network_can_be_read(made, slide):
    from spatiagraph.data.read import read

    out, said = made
    table = pd.read_csv(out / "left_half.csv", index_col=0, dtype={0: str})
    expected = measure_nuclei(read(slide), Crop(size_px=16))
    assert table.index.tolist() == expected.index.tolist()
    np.testing.assert_allclose(table[list(MORPHOLOGY)], expected)
    network = MorphologyProfile.from_pretrained(out / "network" / "model")
    assert not network.training
    assert "left_half.csv" in said
    assert "area_um2" in said
    assert "nuclei are taken to be bright" in said


def test_a_repeated_command_goes_on_where_it_stopped_and_another_is_refused(run, made, slide):
    out, _ = made
    before = (out / "network" / "history.csv").read_text()
    assert run("morphology", slide, *QUICK, "--out", out).exit_code == 0
    assert (out / "network" / "history.csv").read_text() == before
    run.refused(run("morphology", slide, *QUICK, "--seed", 1, "--out", out), "network", "seed")


def test_a_window_larger_than_the_image_is_refused(run, slide, tmp_path):
    done = run("morphology", slide, "--window-um", 5000, "--out", tmp_path)
    run.refused(done, "window_um")
