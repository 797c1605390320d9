"""Shards: together they are the whole, and nothing is joined that has gaps or overlaps."""

import json
import os
import shutil

import pytest

import spatiagraph as sg
from spatiagraph.data.cohort import BusyError, Cohort, create_shard, merge_cohort
from spatiagraph.data.cohort.lock import only_writer
from spatiagraph.data.cohort.results import TileResults
from spatiagraph.data.cohort.shards import Shard, as_shard, check_complete, read_states, write_state


@pytest.fixture(autouse=True, scope="module")
def fast_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def slide(seed, num_cells=200):
    made = sg.make_tissue(num_cells, num_genes=20, image=None, seed=seed, slide_id=f"s{seed}")
    made.adata.obs, made.adata.var = made.adata.obs[["cell_type"]], made.adata.var.iloc[:, :0]
    return made


SLIDES = [slide(0), slide(1), slide(2, 150)]


@pytest.fixture(scope="module")
def model():
    return sg.models.ContextModel.for_slides(SLIDES, channels=8)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, model):
    place = tmp_path_factory.mktemp("whole") / "c.zarr"
    return Cohort.create(place, SLIDES, model.recipe, tile_size=64)


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("total", [0, 1, 5, 12])
@pytest.mark.parametrize("num_shards", [1, 3, 7])
def test_every_item_is_in_one_shard(total, num_shards):
    parts = [Shard(i, num_shards).items(total) for i in range(num_shards)]
    assert [item for part in parts for item in part] == list(range(total))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("given", ["3/3", "-1/3", "1", "a/b", "1/0", "0/3/1", "", (1,), (0.5, 2)])
def test_what_is_no_shard(given):
    with pytest.raises(ValueError, match="Expected a shard"):
        as_shard(given)


def test_slides_prepared_in_shards_are_those_prepared_at_once(whole, model, tmp_path):
    place = tmp_path / "c.zarr"
    for shard in ("2/3", "0/3"):
        create_shard(place, SLIDES, model.recipe, shard=shard, tile_size=64)
    with pytest.raises(ValueError, match=r"all 3 shards .* none of 1/3: run --shard 1/3"):
        merge_cohort(place)
    with pytest.raises(ValueError, match=r"size of tiles of the shards that are done .*0/3, 2/3"):
        create_shard(place, SLIDES, model.recipe, shard="1/3", tile_size=32)
    assert create_shard(place, SLIDES, model.recipe, shard=(1, 3), tile_size=64) == ["s1"]
    merged = merge_cohort(place)
    assert content(merged.path) == content(whole.path)
    assert [p.name for p in tmp_path.iterdir()] == ["c.zarr"]
    with pytest.raises(FileExistsError, match="is there already"):
        create_shard(place, SLIDES, model.recipe, shard="0/3", tile_size=64)
    with pytest.raises(FileNotFoundError, match="there is nothing"):
        merge_cohort(tmp_path / "other.zarr")


def test_tiles_embedded_in_shards_are_those_embedded_at_once(whole, model, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(whole.path, tmp_path / f"{name}.zarr")
    at_once, parts = Cohort(tmp_path / "a.zarr"), Cohort(tmp_path / "b.zarr")
    sg.embed(model, at_once, device="cpu", progress=False)
    with pytest.raises(ValueError, match="shards beside .*, found none"):
        merge_cohort(parts.path)
    sg.embed(model, parts, shard="1/2", device="cpu", progress=False)
    with pytest.raises(ValueError, match="none of 0/2"):
        merge_cohort(parts.path)
    (folder,) = (tmp_path / ".b.context.new").iterdir()
    with only_writer(folder / "0-of-2"), pytest.raises(BusyError, match="another process"):
        sg.embed(model, parts, shard="0/2", device="cpu", progress=False)
    other = sg.models.ContextModel.for_slides(SLIDES, model.recipe, channels=12)
    with pytest.raises(ValueError, match=r"weights of the shards that are done .*1/2"):
        sg.embed(other, parts, shard="0/2", device="cpu", progress=False)
    sg.embed(model, parts, shard="0/2", device="cpu", progress=False)
    merge_cohort(parts.path)
    assert content(parts.path) == content(at_once.path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr", "b.zarr"]
    with pytest.raises(ValueError, match="got a slide: leave it out"):
        sg.embed(model, SLIDES[0], shard="0/2")


def test_slides_of_another_recipe_wait_for_a_shard_that_is_running(model, tmp_path):
    place, begun = tmp_path / "c.zarr", []

    class Slides(list):
        def __getitem__(self, item):  # another process starts while this one is at its second slide
            if item == 1:
                begun.append(item)
                with pytest.raises(BusyError, match="size of tiles of the shards that run now"):
                    create_shard(place, SLIDES, model.recipe, shard="1/2", tile_size=32)
            return super().__getitem__(item)

    create_shard(place, Slides(SLIDES), model.recipe, shard="1/2", tile_size=64)
    assert begun == [1]
    create_shard(place, SLIDES, model.recipe, shard="0/2", tile_size=64)
    assert merge_cohort(place).tile_size == 64
    assert [p.name for p in tmp_path.iterdir()] == ["c.zarr"]


def test_other_weights_wait_for_a_shard_that_is_running(whole, model, tmp_path, monkeypatch):
    cohort = Cohort(shutil.copytree(whole.path, tmp_path / "c.zarr"))
    other = sg.models.ContextModel.for_slides(SLIDES, model.recipe, channels=12)
    begun, original = [], TileResults.write

    def write(results, slide, tile, *values):
        original(results, slide, tile, *values)
        if not begun:
            begun.append(tile)
            with pytest.raises(BusyError, match="weights of the shards that run now"):
                sg.embed(other, cohort, shard="1/2", device="cpu", progress=False)

    monkeypatch.setattr(TileResults, "write", write)
    for shard in ("0/2", "1/2"):
        sg.embed(model, cohort, shard=shard, device="cpu", progress=False)
    assert begun
    assert merge_cohort(cohort.path)[0].adata.obsm["X_context"].shape == (200, 8)


class Other(sg.models.ContextModel):
    name = "other"


def test_an_abandoned_embedding_keeps_no_other_back(whole, model, tmp_path, caplog):
    shutil.copytree(whole.path, tmp_path / "c.zarr")
    cohort = Cohort(tmp_path / "c.zarr")
    sg.embed(model, cohort, shard="0/2", device="cpu", progress=False)
    other = Other.for_slides(SLIDES, model.recipe, channels=8)
    for shard in ("0/2", "1/2"):
        sg.embed(other, cohort, shard=shard, device="cpu", progress=False)
    assert "X_other" in merge_cohort(cohort.path)[0].adata.obsm
    assert "none of 1/2" in caplog.text
    with pytest.raises(ValueError, match="none of 1/2"):
        merge_cohort(cohort.path)


def test_a_cohort_may_have_any_name(model, tmp_path):
    place = tmp_path / "slides [1].zarr"
    cohort = Cohort.create(place, SLIDES[:1], model.recipe, tile_size=64)
    sg.embed(model, cohort, shard="0/1", device="cpu", progress=False)
    assert merge_cohort(place)[0].adata.obsm["X_context"].shape == (200, 8)


def test_the_state_of_a_shard_does_not_grow_with_its_items(tmp_path):
    sizes = []
    for total in (10**3, 10**9):
        for number in range(3):
            write_state(tmp_path, Shard(number, 3), total)
        check_complete(read_states(tmp_path), tmp_path, total)
        sizes.append(sum(file.stat().st_size for file in tmp_path.iterdir()))
    assert sizes[1] < sizes[0] + 3 * 3 * 8  # digits


def test_gaps_and_overlaps_are_refused(tmp_path):
    with pytest.raises(ValueError, match="finished shards .* found none"):
        check_complete([], tmp_path)
    for number in range(3):
        write_state(tmp_path, Shard(number, 3), 9)
    check_complete(read_states(tmp_path), tmp_path)
    with pytest.raises(ValueError, match="every item in one shard .* gaps"):
        check_complete(read_states(tmp_path), tmp_path, 12)
    state = tmp_path / "shard-1-of-3.json"
    plain = json.loads(state.read_text())
    state.write_text(json.dumps({**plain, "start": 2}))
    with pytest.raises(ValueError, match="found 2 to 2 in two of them"):
        check_complete(read_states(tmp_path), tmp_path)
    for gap in ({"start": 4}, {"stop": 5}):
        state.write_text(json.dumps({**plain, **gap}))
        with pytest.raises(ValueError, match="found gaps"):
            check_complete(read_states(tmp_path), tmp_path)
    state.write_text("{")
    with pytest.raises(ValueError, match=r"shard-1-of-3.json"):
        read_states(tmp_path)
    state.unlink()
    write_state(tmp_path, Shard(0, 2), 9)
    with pytest.raises(ValueError, match="one division of the work, found 0/2 and 0/3, 2/3"):
        check_complete(read_states(tmp_path), tmp_path)
