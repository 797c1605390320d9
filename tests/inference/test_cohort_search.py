"""Searches and imputation on a store are those of its slides in memory."""

import os
import shutil

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

import spatiagraph as sg
from spatiagraph.data.cohort import Cohort
from spatiagraph.inference import impute, search_slides
from spatiagraph.retrieval import Selection
from spatiagraph.retrieval.stored import StoredRows

pytestmark = pytest.mark.usefixtures("one_thread")


def slide(seed, num_cells=300):
    made = sg.make_tissue(num_cells, num_genes=30, image=None, seed=seed, slide_id=f"s{seed}")
    made.adata.obs_names = [f"s{seed}_{i}" for i in range(num_cells)]
    return made


SLIDES = [slide(0), slide(1)]


@pytest.fixture(scope="module")
def model():
    return sg.models.ContextModel.for_slides(SLIDES, channels=8)


@pytest.fixture(scope="module")
def store(model, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        place = tmp_path_factory.mktemp("cohort") / "c.zarr"
        made = Cohort.create(place, SLIDES, model.recipe, tile_size=128)
        with pytest.raises(ValueError, match="found no embeddings of slide 's0'"):
            search_slides(made, Selection(cells="s0_7"))
        with pytest.raises(ValueError, match=r"obsm\['X_context'\] .* found \[\]: embed it first"):
            sg.NicheIndex.from_slides(made, "X_context")
        found = sg.embed(model, made, device="cpu", progress=False)
    for each in SLIDES:
        sg.embed(model, each, tile_size=128, device="cpu", progress=False)
    return found


@pytest.mark.parametrize("level", [None, "cell", "tissue"])
def test_a_search_of_a_cohort_finds_what_its_slides_give(store, level):
    ours = search_slides(store, Selection(cells="s0_7"), k=5, level=level, max_distance=2.0)
    theirs = search_slides(SLIDES, Selection(cells="s0_7"), k=5, level=level, max_distance=2.0)
    assert ours.apart_um == pytest.approx(theirs.apart_um)
    assert ours.level == theirs.level
    if level != "tissue":  # any cell of a region stands for it
        assert list(ours.hits["id"]) == list(theirs.hits["id"])
    np.testing.assert_allclose(ours.hits["distance"], theirs.hits["distance"], atol=1e-6)
    assert set(ours.index.obs) == set(theirs.index.obs)


def test_an_index_of_a_cohort_reads_it_block_by_block(store, monkeypatch):
    from spatiagraph.data.cohort.reading import StoredSlide

    def refuse(self):
        raise AssertionError("a slide was read whole")

    monkeypatch.setattr(StoredSlide, "adata", property(refuse))
    index = sg.NicheIndex.from_slides(store, "X_context_niche")
    assert len(index) == 600
    own = store.part().read(0)
    assert own.num_cells == 300
    assert (
        index.model
        == sg.NicheIndex.from_slides({s.slide_id: s.adata for s in SLIDES}, "X_context_niche").model
    )


def test_a_missing_chunk_of_embeddings_is_refused(store, tmp_path):
    shutil.copytree(store.path, tmp_path / "c.zarr")
    cohort = Cohort(tmp_path / "c.zarr")
    (shard,) = (cohort.cells("s1") / "obsm" / "X_context" / "c").rglob("*/0")
    shard.unlink()
    with pytest.raises(ValueError, match=r"X_context/c/0/0' as it was written, found it missing"):
        sg.NicheIndex.from_slides(cohort, "X_context")
    assert len(sg.NicheIndex.from_slides(cohort, "X_context_niche")) == 600


def test_rows_of_several_arrays_are_those_of_one():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(40, 3)), rng.normal(size=(25, 3))
    kept = np.flatnonzero(rng.random(25) < 0.5)
    rows = StoredRows([first, second], [None, kept])
    whole = np.concatenate([first, second[kept]]).astype(np.float32)
    assert rows.shape == whole.shape
    assert_array_equal(rows[:], whole)
    assert_array_equal(rows[30:45], whole[30:45])
    some = np.sort(rng.choice(len(whole), 20, replace=False))
    assert_array_equal(rows[some], whole[some])


def test_cells_that_do_not_count_are_not_imputed(store, model):
    core = torch.arange(store.entries[1].num_cells) < 50
    found = impute(model, store.part(["s1"], cores=[core]), device="cpu")
    whole = impute(model, store.part(["s1"]), device="cpu")
    np.testing.assert_allclose(found[:50], whole[:50], atol=1e-5)
    assert found[50:].isna().all(axis=None)


def test_genes_of_a_slide_of_a_cohort_are_imputed_as_in_memory(store, model):
    ours = impute(model, store.part(["s1"]), device="cpu")
    theirs = impute(model, SLIDES[1], tile_size=128, device="cpu")
    assert ours.index.equals(theirs.index)
    assert_array_equal(ours.to_numpy(), theirs.to_numpy())
    with pytest.raises(ValueError, match=r"one slide of a cohort, got 2: cohort.part"):
        impute(model, store.part())
