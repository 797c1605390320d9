"""An index of a cohort on the disk: equal to one in memory, whole or by shards."""

import os

import numpy as np
import pytest

import spatiagraph as sg
from spatiagraph.data.cohort import BusyError, Cohort
from spatiagraph.data.cohort.lock import only_writer
from spatiagraph.data.cohort.work import shard_folder
from spatiagraph.retrieval import index_cohort, merge_index
from spatiagraph.retrieval.stored import concatenate_cohort

KEY = "X_context_niche"


@pytest.fixture(autouse=True, scope="module")
def fast_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    slides = [
        sg.make_tissue(200, num_genes=20, image=None, seed=seed, slide_id=f"s{seed}")
        for seed in range(3)
    ]
    model = sg.models.ContextModel.for_slides(slides, channels=8)
    place = tmp_path_factory.mktemp("indexed") / "c.zarr"
    made = Cohort.create(place, slides, model.recipe, tile_size=64)
    return sg.embed(model, made, device="cpu", progress=False)


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_an_index_on_the_disk_finds_what_one_in_memory_finds(cohort, tmp_path, metric):
    stored = index_cohort(cohort, KEY, tmp_path / "index", metric=metric)
    memory = sg.NicheIndex.from_slides(cohort, KEY, kind="ivf", metric=metric)
    queries = np.asarray(concatenate_cohort(cohort, KEY).embeddings[::37])
    found, expected = stored.search(queries, k=5), memory.search(queries, k=5)
    assert found.equals(expected)
    assert (stored.recall, stored.model, len(stored)) == (memory.recall, memory.model, 600)
    hits = [index.search_like(index.select(cells="cell7", slide="s1"), k=4)["id"].tolist()
            for index in (stored, memory)]  # fmt: skip
    assert hits[0] == hits[1]
    sizes = {p.name: p.stat().st_size for p in (tmp_path / "index").iterdir()}
    assert sizes["lists.ivfdata"] >= 600 * 8 * 4 > sizes["index.faiss"]
    assert [p.name for p in tmp_path.iterdir()] == ["index"]


def test_shards_make_the_index_of_one_process(cohort, tmp_path):
    out = tmp_path / "index"
    index_cohort(cohort, KEY, out)
    whole = content(out)
    for shard in ("2/3", "0/3"):
        assert index_cohort(cohort, KEY, tmp_path / "index", shard=shard) is None
    with pytest.raises(ValueError, match="none of 1/3: run --shard 1/3"):
        merge_index(out)
    assert content(out) == whole  # the old one stays
    with pytest.raises(ValueError, match=r"embeddings or settings of the shards .*0/3, 2/3"):
        index_cohort(cohort, KEY, out, shard="1/3", seed=1)
    (begun,) = shard_folder(out).iterdir()
    with only_writer(begun / "1-of-3"), pytest.raises(BusyError):
        index_cohort(cohort, KEY, out, shard="1/3")
    index_cohort(cohort, KEY, out, shard="1/3")
    merge_index(out)
    assert content(out) == whole
    with pytest.raises(FileNotFoundError, match="there are none"):
        merge_index(out)


def test_an_index_on_the_disk_can_move_and_is_checked(cohort, tmp_path):
    index_cohort(cohort, KEY, tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    moved = sg.NicheIndex.load(tmp_path / "b")
    moved.save(tmp_path / "c")  # a copy with lists of its own
    again = sg.NicheIndex.load(tmp_path / "c")
    queries = np.asarray(concatenate_cohort(cohort, KEY).embeddings[:3])
    assert again.search(queries, k=3).equals(moved.search(queries, k=3))
    with pytest.raises(ValueError, match="in memory to add items to"):
        again.append(queries, again.obs.iloc[:3])
    lists = tmp_path / "b" / "lists.ivfdata"
    data = bytearray(lists.read_bytes())
    data[100] ^= 1
    lists.write_bytes(data)
    with pytest.raises(ValueError, match="is damaged"):
        sg.NicheIndex.load(tmp_path / "b")
    lists.unlink()
    with pytest.raises(ValueError, match="is damaged"):
        sg.NicheIndex.load(tmp_path / "b")
