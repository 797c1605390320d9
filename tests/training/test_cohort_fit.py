"""``fit`` and ``embed`` on a store: the weights and embeddings of the slides in memory."""

import os
import shutil

import anndata
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

import spatiagraph as sg
from spatiagraph.data.cohort import Cohort
from spatiagraph.data.loader import NicheBatches
from spatiagraph.data.recipe import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True, scope="module")
def fast_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def slide(seed, num_cells=400):
    made = sg.make_tissue(num_cells, num_genes=30, image=None, seed=seed, slide_id=f"s{seed}")
    made.adata.obs, made.adata.var = made.adata.obs[["cell_type"]], made.adata.var.iloc[:, :0]
    return made


SLIDES = [slide(0), slide(1, 300)]


def model(**given):
    return sg.models.ContextModel.for_slides(SLIDES, channels=8, **given)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("cohort") / "c.zarr"
    return Cohort.create(place, SLIDES, model().recipe, tile_size=128)


@pytest.fixture
def store(made, tmp_path):
    """A copy that a test may write to."""
    shutil.copytree(made.path, tmp_path / "c.zarr")
    return Cohort(tmp_path / "c.zarr")


RUN = {"max_epochs": 2, "accelerator": "cpu", "progress": False, "logger": False}


def assert_same_weights(ours, theirs):
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


@pytest.mark.parametrize("validation", [None, 0.2, "slide"])
def test_a_fit_on_a_cohort_is_that_of_its_slides(made, validation):
    train, whole = made.part(["s0"]), SLIDES[:1]
    ours, theirs = model(), model()
    held = {"slide": (made.part(["s1"]), SLIDES[1:])}.get(validation, (validation, validation))
    stored = sg.fit(ours, train, validation=held[0], **RUN)
    memory = sg.fit(theirs, whole, tile_size=128, validation=held[1], **RUN)
    assert_same_weights(ours, theirs)
    assert stored.record == memory.record
    columns = [c for c in memory.history if "seconds" not in c]
    assert stored.history[columns].equals(memory.history[columns])
    assert len(stored.history) == 2


def test_a_run_in_memory_is_gone_on_with_from_a_cohort(made, tmp_path):
    theirs, ours = model(), model()
    sg.fit(theirs, SLIDES, tile_size=128, out=tmp_path / "a", **RUN)
    # stopped after an epoch in memory
    first = model()

    class Stop(Exception):
        pass

    from lightning.pytorch.callbacks import Callback

    class Stopper(Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 1:
                raise Stop

    with pytest.raises(Stop):
        sg.fit(first, SLIDES, tile_size=128, out=tmp_path / "b", callbacks=Stopper(), **RUN)
    sg.fit(ours, made, out=tmp_path / "b", num_workers=1, **RUN)
    assert_same_weights(ours, theirs)


def test_embeddings_of_a_cohort_are_those_of_its_slides(store):
    trained = model()
    found = sg.embed(trained, store, device="cpu", progress=False)
    for at, given in enumerate([slide(0), slide(1, 300)]):
        whole = sg.embed(trained, given, tile_size=128, device="cpu", progress=False)
        ours = found[at].adata
        assert set(whole.obsm) == set(ours.obsm)
        for key in whole.obsm:
            assert_array_equal(ours.obsm[key], whole.obsm[key])
        for key in whole.obsp:
            assert abs(ours.obsp[key] - whole.obsp[key]).max() < 1e-6
        assert list(ours.obs) == list(whole.obs)
        assert_array_equal(ours.obs["context_tissue"], whole.obs["context_tissue"])
        notes, expected = ours.uns["spatiagraph"], whole.uns["spatiagraph"]
        assert notes["name"] == "context"
        assert notes["embed"] == expected["embed"]
        assert notes["levels"] == expected["levels"]
        assert notes["width_um"] == expected["width_um"]
    plain = anndata.read_zarr(found.cells("s0"))
    row = plain.obs["cohort_row"].to_numpy()
    assert_array_equal(plain.obsm["X_context"], found["s0"].adata.obsm["X_context"][row])
    assert found.damaged() == []
    assert [p.name for p in store.path.parent.iterdir()] == ["c.zarr"]


def test_embedding_again_changes_nothing_and_other_weights_replace(store, monkeypatch):
    trained = model()
    sg.embed(trained, store, device="cpu", progress=False)
    stamps = {p: p.stat().st_mtime_ns for p in store.path.rglob("*")}
    sg.embed(trained, store, device="cpu", progress=False)
    assert {p: p.stat().st_mtime_ns for p in store.path.rglob("*")} == stamps
    other = model(seed=1)
    found = sg.embed(other, store, device="cpu", progress=False)
    whole = sg.embed(other, slide(0), tile_size=128, device="cpu", progress=False)
    assert_array_equal(found["s0"].adata.obsm["X_context"], whole.obsm["X_context"])
    assert len(found.files("s0").results) == 1
    assert found.damaged() == []


def test_an_interrupted_embedding_goes_on_after_the_last_tile(store, monkeypatch):
    from spatiagraph.data.cohort.results import TileResults
    from spatiagraph.inference import cohorts

    trained, written = model(), []
    expected = sg.embed(trained, slide(1, 300), tile_size=128, device="cpu", progress=False)
    original = TileResults.write

    def stopping(self, slide, tile, *values):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append((slide, tile))
        original(self, slide, tile, *values)

    with monkeypatch.context() as patch:
        patch.setattr(TileResults, "write", stopping)
        with pytest.raises(KeyboardInterrupt):
            sg.embed(trained, store, device="cpu", progress=False)
    seen = []
    embed_tile = cohorts.embed_tile
    with monkeypatch.context() as patch:
        patch.setattr(cohorts, "embed_tile", lambda *a: (seen.append(1), embed_tile(*a))[1])
        found = sg.embed(trained, store, device="cpu", progress=False)
    assert len(seen) == len(store.tiles(128, 1)) - 3
    assert_array_equal(found["s1"].adata.obsm["X_context"], expected.obsm["X_context"])


def test_what_a_cohort_cannot_do_is_said_at_the_door(store):
    trained = model()
    with pytest.raises(ValueError, match="tile_size=128 of the cohort"):
        sg.fit(trained, store, tile_size=64, **RUN)
    with pytest.raises(ValueError, match="tile_size=128 of the cohort"):
        sg.embed(trained, store, tile_size=64)
    with pytest.raises(ValueError, match="in memory with cache_cells=True"):
        sg.fit(trained, store, cache_cells=True, **RUN)
    with pytest.raises(ValueError, match="in memory with batches"):
        sg.fit(trained, store, batches=NicheBatches(), **RUN)
    other = sg.models.ContextModel.for_slides(SLIDES, Recipe(trained.panel, levels=()), channels=8)
    for call in (sg.fit, sg.embed):
        with pytest.raises(ValueError, match="was made with another levels: create one"):
            call(other, store)
    deep = sg.models.ContextModel.for_slides(SLIDES, trained.recipe, channels=8, num_layers=2)
    with pytest.raises(ValueError, match="of at most 1 hops .* num_hops=2"):
        sg.embed(deep, store)
    tokens = sg.models.SToFM.for_slides(SLIDES)
    with pytest.raises(ValueError, match="SToFM makes more of a slide first"):
        sg.fit(tokens, store, **RUN)
    with pytest.raises(ValueError, match=r"differ from each other .* \['s0', 's1'\] again"):
        sg.fit(trained, store, validation=store, **RUN)


def test_a_model_is_built_from_a_cohort(store):
    built = sg.models.ContextModel.for_slides(store, store.recipe, channels=8)
    assert_same_weights(built, model())


def test_a_damaged_tile_ends_a_fit_with_its_name(store):
    shard = store.folder("s0") / "tiles" / "1" / "c" / "0"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    for workers in (0, 1):
        with pytest.raises(Exception, match="tiles/1/c/0"):
            sg.fit(model(), store, num_workers=workers, **RUN)
    assert np.isfinite(model().head.linear.weight.detach().numpy()).all()
