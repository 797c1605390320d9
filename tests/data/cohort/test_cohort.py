"""The store of many slides: its tiles are those of memory, its slides are AnnData."""

import errno
import os
import shutil
import warnings

import anndata
import numpy as np
import pytest
import torch
import zarr
from numpy.testing import assert_array_equal
from torch_geometric import EdgeIndex

import spatiagraph as sg
from spatiagraph._files import DiskFullError
from spatiagraph.data import GenePanel, LabelSet
from spatiagraph.data.cohort import BusyError, Cohort, is_cohort
from spatiagraph.data.cohort.lock import only_writer
from spatiagraph.data.content import content_hash
from spatiagraph.data.loader import TileDataset, TileLoader
from spatiagraph.data.recipe import Crop, Grid, Neighborhoods, Parts, Ranks, Recipe


def slide(seed, num_cells=300, **given):
    given = {"num_genes": 24, "image": None, "slide_id": f"s{seed}"} | given
    made = sg.make_tissue(num_cells, seed=seed, **given)
    made.adata.obs, made.adata.var = made.adata.obs[["cell_type"]], made.adata.var.iloc[:, :0]
    made.adata.obsm["X_own"] = np.random.default_rng(seed).normal(size=(num_cells, 3)).astype("f4")
    return made


SLIDES = [slide(0), slide(1, 200)]
PANEL = GenePanel.from_slides(SLIDES)
RECIPE = Recipe(
    PANEL,
    levels=(Neighborhoods(15), Parts(60)),
    features=("X_own",),
    labels=LabelSet.from_slides(SLIDES, ["cell_type"]),
)


@pytest.fixture(autouse=True, scope="module")
def fast_disk():
    """Nobody pulls the plug here: waiting for the disk is most of the time of a small store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    place = tmp_path_factory.mktemp("cohort") / "c.zarr"
    return Cohort.create(place, SLIDES, RECIPE, tile_size=100, num_hops=2)


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def plain(value):
    if value.layout is torch.sparse_csr:
        value = torch.cat([value.crow_indices(), value.col_indices(), value.values()])
    return value.as_tensor() if isinstance(value, EdgeIndex) else value


def assert_same_tile(ours, theirs, rounded=()):
    assert set(ours.keys()) == set(theirs.keys())
    assert ours.items_of == theirs.items_of
    assert ours.slide == theirs.slide
    for key in theirs.keys():
        a, b = ours[key], theirs[key]
        if not isinstance(b, torch.Tensor):
            assert a == b, key
            continue
        assert (a.dtype, a.shape, type(a)) == (b.dtype, b.shape, type(b)), key
        if isinstance(b, EdgeIndex):
            assert a.sparse_size() == b.sparse_size()
            assert a.sort_order == b.sort_order
        if key in rounded:
            assert float((a - b).abs().max()) <= 0.5 / 255 + 1e-6, key
        else:
            assert torch.equal(plain(a), plain(b)), key


@pytest.mark.parametrize("num_hops", [0, 1, 2])
def test_tiles_are_those_of_memory_bit_for_bit(store, num_hops):
    # tiles of two hops serve models of fewer as well
    whole = TileDataset([RECIPE(s) for s in SLIDES], 100, num_hops)
    stored = store.tiles(100, num_hops)
    assert len(stored) == len(whole) > 5
    for i in range(len(whole)):
        assert_same_tile(stored[i], whole[i])


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(PANEL, levels=()),
        Recipe(PANEL, levels=(Grid(40.0),)),
        Recipe(PANEL, levels=(), tokens=Ranks(10)),
    ],
    ids=["cells", "grid", "tokens"],
)
def test_tiles_of_every_kind_of_recipe_are_those_of_memory(tmp_path, recipe):
    cohort = Cohort.create(tmp_path / "c.zarr", SLIDES[1:], recipe, tile_size=60, num_hops=0)
    whole, stored = TileDataset([recipe(SLIDES[1])], 60, 0), cohort.tiles(60, 0)
    assert len(stored) == len(whole) > 2
    for i in range(len(whole)):
        assert_same_tile(stored[i], whole[i])


def test_tiles_of_cells_that_count_are_those_of_memory(store):
    prepared = [RECIPE(s) for s in SLIDES]
    cores = [torch.from_numpy(s.pos[:, 0] > np.median(s.pos[:, 0])) for s in SLIDES]
    for data, core in zip(prepared, cores, strict=True):
        data.core = core
    whole, stored = TileDataset(prepared, 100, 2), store.part(cores=cores).tiles(100, 2)
    assert 0 < len(stored) == len(whole) < len(store.tiles(100, 2))
    for i in range(len(whole)):
        assert_same_tile(stored[i], whole[i])


def test_crops_are_stored_as_bytes(tmp_path):
    pictured = slide(2, image="he", num_genes=24)
    recipe = Recipe(PANEL, levels=(Parts(60),), crops=(Crop(16.0, 12), Crop(30.0, 8, of="niche")))
    cohort = Cohort.create(tmp_path / "c.zarr", [pictured], recipe, tile_size=100)
    whole, stored = TileDataset([recipe(pictured)], 100, 1), cohort.tiles(100, 1)
    for i in range(len(whole)):
        assert_same_tile(stored[i], whole[i], rounded=("image", "niche_image"))
    at_pixels = Recipe(PANEL, levels=(), crops=(Crop(8 * pictured.image.mpp, 8),))
    exact = Cohort.create(tmp_path / "d.zarr", [pictured], at_pixels, tile_size=100)
    # crops at the pixels of an 8-bit image lose nothing
    assert_same_tile(exact.tiles(100, 1)[0], TileDataset([at_pixels(pictured)], 100, 1)[0])


def test_worker_processes_read_the_same_tiles(store):
    alone = list(TileLoader(store, 100, 2, shuffle=True, seed=3))
    shared = list(TileLoader(store, 100, 2, shuffle=True, seed=3, num_workers=2))
    whole = list(TileLoader([RECIPE(s) for s in SLIDES], 100, 2, shuffle=True, seed=3))
    for ours, theirs, expected in zip(alone, shared, whole, strict=True):
        assert_same_tile(theirs, ours)
        assert_same_tile(ours, expected)


def test_a_slide_inside_is_an_anndata(store):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*consolidated.*")
        adata = anndata.read_zarr(store.cells("s0"))
        lazy = anndata.experimental.read_lazy(store.cells("s0"))
    row = adata.obs["cohort_row"].to_numpy()
    assert_array_equal(adata.X.toarray(), SLIDES[0].counts.toarray()[row])
    assert_array_equal(lazy.X.compute().toarray(), adata.X.toarray())
    assert adata.X.dtype == np.uint16  # the narrowest that holds them
    assert SLIDES[0].counts.max() > 255
    assert list(adata.obs_names) == list(SLIDES[0].adata.obs_names[row])
    assert_array_equal(adata.obsm["spatial"], SLIDES[0].pos[row])
    assert list(adata.obs["cell_type"]) == list(SLIDES[0].adata.obs["cell_type"].iloc[row])
    degree = np.asarray((adata.obsp["spatial_connectivities"] > 0).sum(1)).ravel()
    assert (degree == 8).all()
    step = np.linalg.norm(np.diff(adata.obsm["spatial"], axis=0), axis=1)
    given = np.linalg.norm(np.diff(SLIDES[0].pos, axis=0), axis=1)
    assert np.median(step) < np.median(given)  # neighbours lie side by side
    array = zarr.open_array(store.cells("s0") / "X" / "data", mode="r")
    assert array.shards is not None


def test_a_slide_comes_back_as_it_was_given(store):
    assert len(store) == 2
    assert store.num_cells == 500
    for given, found in zip(SLIDES, store, strict=True):
        assert content_hash(found) == content_hash(given)
        assert found.donor == given.donor
        assert found.adata.obs_names.equals(given.adata.obs_names)
        assert list(found.adata.obs) == list(given.adata.obs)
        assert_array_equal(found.adata.obsm["X_own"], given.adata.obsm["X_own"])
    assert store["s1"].slide_id == store[-1].slide_id == "s1"
    with pytest.raises(ValueError, match="a slide of the cohort, 's0', 's1', got 's7'"):
        store["s7"]
    with pytest.raises(IndexError, match="from 0 to 1, got 2"):
        store[2]


def test_the_same_call_gives_the_same_bytes_and_then_changes_nothing(store, tmp_path):
    again = Cohort.create(tmp_path / "d.zarr", iter(SLIDES), RECIPE, tile_size=100, num_hops=2)
    assert content(again.path) == content(store.path)
    stamps = {p: p.stat().st_mtime_ns for p in again.path.rglob("*")}
    Cohort.create(tmp_path / "d.zarr", SLIDES, RECIPE, tile_size=100, num_hops=2)
    assert {p: p.stat().st_mtime_ns for p in again.path.rglob("*")} == stamps
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.zarr"]


def test_slides_may_be_files(store, tmp_path):
    paths = []
    for given in SLIDES:
        paths.append(tmp_path / f"{given.slide_id}.h5ad")
        sg.write(given, paths[-1])
    cohort = Cohort.create(tmp_path / "c.zarr", paths, RECIPE, tile_size=100, num_hops=2)
    for ours, theirs in zip(cohort.tiles(100, 2), store.tiles(100, 2), strict=True):
        assert_same_tile(ours, theirs)


class Stop(Exception):
    pass


def test_an_interrupted_creation_goes_on_and_ends_in_the_same_bytes(store, tmp_path, monkeypatch):
    from spatiagraph.data.cohort import writing

    written = []
    original = writing.write_tile

    def stopping(folder, number, packed):
        if len(written) == 5:
            raise Stop
        written.append((folder.name, number))
        original(folder, number, packed)

    place = tmp_path / "c.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(writing, "write_tile", stopping)
        with pytest.raises(Stop):
            Cohort.create(place, SLIDES, RECIPE, tile_size=100, num_hops=2)
    assert not place.exists()
    again = []
    with monkeypatch.context() as patch:
        patch.setattr(writing, "write_tile", lambda *a: (again.append(a[1]), original(*a)))
        Cohort.create(place, SLIDES, RECIPE, tile_size=100, num_hops=2)
    assert len(again) == len(store.tiles(100, 2)) - 5  # those that were there are kept
    assert content(place) == content(store.path)
    assert [p.name for p in tmp_path.iterdir()] == ["c.zarr"]


def test_what_was_begun_by_another_recipe_is_not_gone_on_with(store, tmp_path, monkeypatch):
    from spatiagraph.data.cohort import creating as module

    place = tmp_path / "c.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(module, "flush_folder", lambda path: (_ for _ in ()).throw(Stop))
        with pytest.raises(Stop):
            Cohort.create(place, SLIDES, Recipe(PANEL, levels=()), tile_size=100)
    Cohort.create(place, SLIDES, RECIPE, tile_size=100, num_hops=2)
    assert content(place) == content(store.path)


def test_append_and_replace_leave_the_other_slides_alone(store, tmp_path):
    whole = Cohort.create(
        tmp_path / "whole.zarr", [*SLIDES, slide(5, 150)], RECIPE, tile_size=100, num_hops=2
    )
    cohort = Cohort.create(tmp_path / "c.zarr", SLIDES, RECIPE, tile_size=100, num_hops=2)
    stamps = {p: p.stat().st_mtime_ns for p in cohort.folder("s0").rglob("*")}
    cohort.append([slide(5, 150)])
    assert content(cohort.path) == content(whole.path)
    changed = slide(9, 210, slide_id="s1")
    cohort.replace(changed)
    assert Cohort(cohort.path).slide_ids == ["s0", "s1", "s5"]
    assert content_hash(cohort["s1"]) == content_hash(changed)
    assert len(list((cohort.path / "slides").iterdir())) == 4  # three, and zarr.json
    cohort.replace(SLIDES[1])
    assert content(cohort.path) == content(whole.path)
    assert {p: p.stat().st_mtime_ns for p in cohort.folder("s0").rglob("*")} == stamps
    with pytest.raises(ValueError, match="different slide_id for each slide .*'s0' again"):
        cohort.append([SLIDES[0]])
    with pytest.raises(ValueError, match="a slide of the cohort, .*, got 's8'"):
        cohort.replace(slide(8))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.zarr", "whole.zarr"]


@pytest.mark.parametrize("what", ["flip", "cut", "gone", "exchanged"])
def test_a_damaged_tile_is_refused_by_name(store, tmp_path, what):
    place = tmp_path / "c.zarr"
    shutil.copytree(store.path, place)
    cohort = Cohort(place)
    shard = cohort.folder("s1") / "tiles" / "1" / "c" / "0"
    data = bytearray(shard.read_bytes())
    if what == "flip":
        data[len(data) // 3] ^= 1
    other = cohort.folder("s1") / "tiles" / "0" / "c" / "0"
    changed = other.read_bytes() if what == "exchanged" else bytes(data[: len(data) // 2])
    shard.unlink() if what == "gone" else shard.write_bytes(data if what == "flip" else changed)
    cohort = Cohort(place)
    tiles = cohort.part(["s1"]).tiles(100, 2)
    tiles[0]
    with pytest.raises(ValueError, match=r"tiles/1/c/0.*(restore it|replace)"):
        tiles[1]
    assert cohort.damaged() == [str(shard)]


def test_every_flipped_byte_of_a_tile_is_seen(store, tmp_path):
    place = tmp_path / "c.zarr"
    shutil.copytree(store.path, place)
    cohort = Cohort(place)
    shard = cohort.folder("s0") / "tiles" / "0" / "c" / "0"
    whole = shard.read_bytes()
    for at in np.random.default_rng(0).integers(0, len(whole), 40):
        data = bytearray(whole)
        data[at] ^= 1 << int(at % 8)
        shard.write_bytes(data)
        with pytest.raises(ValueError, match="tiles/0/c/0"):
            cohort.store("s0").read(0)


def test_damage_elsewhere_is_refused_by_name(store, tmp_path):
    place = tmp_path / "c.zarr"
    shutil.copytree(store.path, place)
    counts = store.cells("s0").relative_to(store.path) / "X" / "data" / "c" / "0"
    data = bytearray((place / counts).read_bytes())
    data[20] ^= 4
    (place / counts).write_bytes(data)
    cohort = Cohort(place)
    with pytest.raises(ValueError, match=r"X/data/c/0' as it was written"):
        _ = cohort["s0"].counts
    assert cohort["s1"].counts.nnz
    listed = cohort.folder("s1") / "zarr.json"
    text = listed.read_text()
    listed.write_text(text.replace('"cells/', '"cello/', 1))
    with pytest.raises(ValueError, match=r"zarr.json' as it was written, found it changed"):
        Cohort(place)
    listed.unlink()
    with pytest.raises(ValueError, match=r"zarr.json', found none"):
        Cohort(place)
    listed.write_text(text)
    root = place / "zarr.json"
    root.write_text(root.read_text().replace('"tile_size": 100', '"tile_size": 200'))
    with pytest.raises(ValueError, match="as it was written, found it changed"):
        Cohort(place)
    root.write_text("{")
    assert is_cohort(place)  # so that commands say what is wrong with it
    with pytest.raises(ValueError, match=r"JSON in .*zarr.json"):
        Cohort(place)


def test_a_missing_chunk_is_not_taken_for_zeros(store, tmp_path):
    place = tmp_path / "c.zarr"
    shutil.copytree(store.path, place)
    cohort = Cohort(place)
    cores = [torch.ones(300, dtype=torch.bool), torch.ones(200, dtype=torch.bool)]
    (cohort.cells("s1") / "obs" / "cohort_tile" / "c" / "0").unlink()
    with pytest.raises(ValueError, match=r"cohort_tile/c/0' as it was written, found it missing"):
        cohort.part(cores=cores).tiles(100, 2)
    with pytest.raises(ValueError, match="a mask of the cells of each of 2 slides, got masks of"):
        cohort.part(cores=cores[:1])


def test_a_full_disk_is_named_and_gone_on_from(store, tmp_path, monkeypatch):
    from spatiagraph.data.cohort import writing

    original = writing.write_tile

    def full(folder, number, packed):
        if number == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(folder, number, packed)

    place = tmp_path / "c.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(writing, "write_tile", full)
        with pytest.raises(DiskFullError, match="No space left"):
            Cohort.create(place, SLIDES, RECIPE, tile_size=100, num_hops=2)
    assert content(Cohort.create(place, SLIDES, RECIPE, tile_size=100, num_hops=2).path) == content(
        store.path
    )


def test_what_is_no_cohort_is_refused(store, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is nothing"):
        Cohort(tmp_path / "none.zarr")
    zarr.open_group(tmp_path / "foreign.zarr", mode="w", zarr_format=3)
    with pytest.raises(ValueError, match="found another Zarr store"):
        Cohort(tmp_path / "foreign.zarr")
    with pytest.raises(FileExistsError, match="another Zarr store"):
        Cohort.create(tmp_path / "foreign.zarr", SLIDES, RECIPE)
    with pytest.raises(ValueError, match="found none at"):
        Cohort(tmp_path)
    with pytest.raises(ValueError, match="ends in .zarr, got 'cohort'"):
        Cohort.create(tmp_path / "cohort", SLIDES, RECIPE)
    (tmp_path / "file.zarr").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file"):
        Cohort.create(tmp_path / "file.zarr", SLIDES, RECIPE)
    with pytest.raises(ValueError, match="is a cohort of slides"):
        sg.read(store.path)


def test_what_does_not_fit_is_refused_at_the_door(store, tmp_path):
    place = tmp_path / "c.zarr"
    with pytest.raises(ValueError, match="slides to make a cohort of, got none"):
        Cohort.create(place, [], RECIPE)
    with pytest.raises(ValueError, match="different slide_id for each slide .*'s0' again"):
        Cohort.create(place, [SLIDES[0], SLIDES[0]], RECIPE)
    with pytest.raises(TypeError, match="slides or paths of them, got int 3"):
        Cohort.create(place, [3], RECIPE)
    foreign = slide(3)
    foreign.adata.var_names = [f"Other{i}" for i in range(24)]
    with pytest.raises(ValueError, match="panel"):
        Cohort.create(place, [SLIDES[0], foreign], RECIPE)
    assert not place.exists()
    with pytest.raises(ValueError, match="'tile_size' of at least 1"):
        Cohort.create(place, SLIDES, RECIPE, tile_size=0)
    with pytest.raises(FileExistsError, match="of another recipe or with other tiles"):
        Cohort.create(store.path, SLIDES, RECIPE, tile_size=50, num_hops=2)
    with pytest.raises(FileExistsError, match="of 2 slides, not of these 1"):
        Cohort.create(store.path, SLIDES[:1], RECIPE, tile_size=100, num_hops=2)
    with pytest.raises(FileExistsError, match="of other slides"):
        Cohort.create(store.path, [SLIDES[0], slide(4)], RECIPE, tile_size=100, num_hops=2)
    with pytest.raises(ValueError, match="tile_size=100 of the cohort .* got 50"):
        store.tiles(50, 2)
    with pytest.raises(ValueError, match="at most 2 hops .* num_hops=3"):
        store.tiles(100, 3)


def test_slides_of_different_panels_stand_side_by_side(tmp_path):
    part = slide(6)[:]
    part = sg.Slide(part.adata[:, :15].copy(), slide_id="part", check=False)
    keep = np.asarray(part.counts.sum(1)).ravel() > 0
    part = part[keep]
    cohort = Cohort.create(tmp_path / "c.zarr", [SLIDES[0], part], Recipe(PANEL), tile_size=100)
    tiles = cohort.part(["part"]).tiles(100, 1)
    assert int(tiles[0].gene_mask.sum()) == 15
    assert cohort.entries[1].panel_coverage == pytest.approx(15 / len(PANEL))


def test_one_writer_at_a_time(store, tmp_path):
    place = tmp_path / "c.zarr"
    shutil.copytree(store.path, place)
    cohort = Cohort(place)
    with only_writer(place), pytest.raises(BusyError, match="another process is writing to it"):
        cohort.append([slide(5)])
    cohort.append([slide(5)])
    assert len(Cohort(place)) == 3


@pytest.mark.skipif(os.name == "nt", reason="locks of files are always there")
def test_a_file_system_without_locks_is_written_to_and_warned_of(tmp_path, monkeypatch, caplog):
    import fcntl

    def refused(*args):
        raise OSError(errno.ENOSYS, "Function not implemented")  # as Lustre without -o flock does

    monkeypatch.setattr(fcntl, "flock", refused)
    with only_writer(tmp_path / "c.zarr"):
        pass
    assert "no locks on the file system" in caplog.text
