import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial import cKDTree
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, mutual_info_score

from spatiagraph import keys
from spatiagraph.data import make_tissue

SLIDE = make_tissue(2000, image="dapi", transcripts=True, seed=3)
OBS = SLIDE.adata.obs
TYPE = OBS["cell_type"].cat.codes.to_numpy()


def nearest(slide, k):
    """Rows of the ``k`` nearest other cells, ``[N, k]``."""
    return cKDTree(slide.pos).query(slide.pos, k + 1)[1][:, 1:]


def tables(slide):
    return [
        slide.pos.tobytes(),
        slide.counts.indices.tobytes(),
        slide.counts.data.tobytes(),
        slide.adata.obs.to_csv(),
        slide.adata.var.to_csv(),
    ]


def test_one_seed_gives_identical_bytes_and_another_does_not():
    again = make_tissue(2000, image="dapi", transcripts=True, seed=3)
    assert tables(again) == tables(SLIDE)
    pd.testing.assert_frame_equal(again.transcripts, SLIDE.transcripts)
    assert_array_equal(again.image.thumbnail()[0], SLIDE.image.thumbnail()[0])
    other = make_tissue(2000, seed=4)
    assert not any(a == b for a, b in zip(tables(other)[:4], tables(SLIDE), strict=False))


def test_image_and_transcripts_do_not_change_cells_and_counts():
    assert tables(make_tissue(2000, seed=3)) == tables(SLIDE)


def test_slides_of_one_biology_share_genes_and_compositions():
    other = make_tissue(2000, seed=4)
    pd.testing.assert_frame_equal(other.adata.var, SLIDE.adata.var)
    share = [
        pd.crosstab(s.adata.obs["niche"], s.adata.obs["cell_type"], normalize="index").to_numpy()
        for s in (SLIDE, other)
    ]
    assert np.abs(share[0] - share[1]).max() < 0.12  # sampling noise of 70 cells and more
    foreign = make_tissue(2000, seed=3, biology_seed=1)
    assert not foreign.adata.var.equals(SLIDE.adata.var)


def test_cells_are_ten_micrometres_apart_and_never_overlap():
    distance = cKDTree(SLIDE.pos).query(SLIDE.pos, 2)[0][:, 1]
    width, height = np.ptp(SLIDE.pos, axis=0)
    assert distance.min() >= 4.0
    assert 80 < width * height / 2000 < 120
    assert width > 1.2 * height


def test_niches_differ_in_composition_and_are_coherent_in_space():
    share = pd.crosstab(OBS["niche"], OBS["cell_type"], normalize="index").to_numpy()
    gap = np.abs(share[:, None] - share).sum(-1) / 2
    assert gap[np.triu_indices(5, 1)].min() > 0.25
    assert (share > 0).mean() > 0.9  # hardly a type gives its niche away
    niche = OBS["niche"].cat.codes.to_numpy()
    assert (niche[nearest(SLIDE, 6)] == niche[:, None]).mean() > 0.8
    kinds = pd.crosstab(OBS["region"], OBS["niche"])
    assert kinds.shape == (4, 5)
    assert ((kinds > 0).sum(axis=1) >= 2).all()


def test_neighbourhoods_find_the_niches_that_cells_alone_do_not():
    counts = SLIDE.counts.toarray()
    logs = np.log1p(counts / counts.sum(1, keepdims=True) * 200)
    alone = PCA(30, random_state=0).fit_transform(logs)
    around = alone[np.column_stack([np.arange(2000), nearest(SLIDE, 18)])].mean(1)
    ari = [
        adjusted_rand_score(OBS["niche"], KMeans(5, n_init=5, random_state=0).fit_predict(features))
        for features in (alone, around)
    ]
    assert ari[0] < 0.3
    assert ari[1] > ari[0] + 0.25


def test_neighbor_label_is_the_majority_of_seven_neighbours_and_nothing_else():
    first_half = TYPE < 4
    expected = first_half[nearest(SLIDE, 7)].sum(1) >= 4
    assert_array_equal(OBS["neighbor_label"] == "many", expected)
    large = make_tissue(20_000, seed=0).adata.obs
    # 2 N I is chi-squared with 7 and 4 degrees of freedom when independent
    for column, limit in {"cell_type": 30, "niche": 25}.items():
        bits = mutual_info_score(large[column], large["neighbor_label"])
        assert 2 * len(large) * bits < limit
    assert 0.45 < (large["neighbor_label"] == "many").mean() < 0.55


def test_marker_genes_mark_their_type():
    var = SLIDE.adata.var
    shares = SLIDE.counts.toarray() / SLIDE.depth[:, None]
    means = np.stack([shares[t == TYPE].mean(0) for t in range(8)])
    for t in range(8):
        markers = (var["marker_of"] == f"type{t}").to_numpy()
        assert markers.sum() == 10
        assert (means[:, markers].argmax(0) == t).mean() > 0.9


def test_neighbor_dependent_genes_follow_their_neighbours_and_not_the_type():
    var = SLIDE.adata.var
    shares = SLIDE.counts.toarray() / SLIDE.depth[:, None]
    sensed = np.flatnonzero(var["neighbor_dependent"])
    assert len(sensed) == 20
    around = nearest(SLIDE, 7)
    for g in sensed:
        sender = int(var["neighbor_type"].iloc[g].removeprefix("type"))
        fraction = (TYPE[around] == sender).mean(1)
        many, none = shares[fraction > 0.4, g].mean(), shares[fraction == 0, g].mean()
        assert many > 1.6 * none
    unmoved = make_tissue(2000, seed=3, neighbor_strength=0.0)
    shares = unmoved.counts.toarray() / unmoved.depth[:, None]
    means = np.stack([shares[t == TYPE][:, sensed].mean() for t in range(8)])
    assert np.ptp(means) < 0.15 * means.mean()


def test_depth_follows_mean_counts_and_no_cell_is_empty():
    assert 190 < SLIDE.depth.mean() < 250
    sparse = make_tissue(1000, mean_counts=2.0)
    assert sparse.depth.min() >= 1
    assert sparse.depth.mean() < 3


def test_transcripts_add_up_to_the_counts_and_stay_near_their_cell():
    molecules = SLIDE.transcripts
    cell = molecules["cell_id"].cat.codes.to_numpy()
    gene = molecules["gene"].cat.codes.to_numpy()
    table = np.zeros((2000, 200))
    np.add.at(table, (cell, gene), 1)
    assert_array_equal(table, SLIDE.counts.toarray())
    assert list(molecules["cell_id"].cat.categories) == list(SLIDE.adata.obs_names)
    away = np.hypot(*(molecules[["x_um", "y_um"]].to_numpy() - SLIDE.pos[cell]).T)
    reach = OBS["nucleus_major_um"].to_numpy()[cell]
    nuclear = (SLIDE.adata.var["compartment"] == "nucleus").to_numpy()[gene]
    assert (away <= 1.81 * reach).all()
    assert (away[nuclear] <= reach[nuclear]).all()
    assert (molecules["qv"] >= 20).all()


@pytest.mark.parametrize("stain", ["he", "dapi"])
def test_nuclei_in_the_image_have_the_size_of_their_type(stain):
    slide = make_tissue(400, image=stain, seed=5)
    crops, mask = slide.image.crops(slide.pos, 12.0, 24)
    assert mask.all()
    assert crops.shape[1] == (3 if stain == "he" else 1)
    bright = crops[:, 0] if stain == "dapi" else 1 - crops[:, 0]  # nuclei absorb red
    middle = bright[:, 10:14, 10:14].mean((1, 2))
    assert middle.mean() > 2 * bright[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean()
    area = (bright > 0.5 * middle[:, None, None]).mean((1, 2)) * 144  # µm², neighbours included
    radius = np.sqrt(slide.adata.obs["nucleus_major_um"] * slide.adata.obs["nucleus_minor_um"])
    by_type = pd.DataFrame({"area": area, "radius": radius}).groupby(
        slide.adata.obs["cell_type"], observed=True
    )
    means = by_type.mean().sort_values("radius")
    assert means["area"].iloc[-1] > 1.4 * means["area"].iloc[0]
    assert np.corrcoef(means["area"], means["radius"] ** 2)[0, 1] > 0.8


def test_he_is_pink_with_purple_nuclei():
    small = make_tissue(300, image="he").image.thumbnail(2000)[0].astype(int)
    background = np.median(small.reshape(-1, 3), axis=0)
    dark = np.percentile(small.reshape(-1, 3), 2, axis=0)
    assert background[0] > 230
    assert background[1] < background[2] <= background[0]  # pink
    assert dark[2] > dark[0] > dark[1] - 20  # purple: blue over red
    assert dark.max() < 200


def test_arguments_are_recorded():
    record = make_tissue(50, seed=7, num_genes=30).adata.uns[keys.UNS]["synthetic"]
    assert (record["num_cells"], record["seed"], record["num_genes"]) == (50, 7, 30)
    assert "image" not in record


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_cells": 0}, "'num_cells' of at least 1, got 0"),
        ({"num_types": 2}, "at least 3 types so that 5 niches differ, got 2"),
        ({"num_genes": 8}, "more genes than types"),
        ({"num_regions": 0}, "'num_regions' of at least 1"),
        ({"image": "fish"}, "'he', 'dapi' or None, got 'fish'"),
    ],
)
def test_impossible_tissue_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_tissue(**arguments)


@pytest.mark.parametrize("num_cells", [1, 2, 7, 30])
def test_tiny_tissue_is_made(num_cells):
    slide = make_tissue(num_cells, image="he", transcripts=True)
    assert slide.num_cells == num_cells
    assert slide.image.covers(slide.pos).all()
    assert_allclose(len(slide.transcripts), slide.depth.sum())
