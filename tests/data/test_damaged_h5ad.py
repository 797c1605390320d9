"""Damage done to an .h5ad in every place: each is named in one line, or the slide is the same."""

import os
import signal
import subprocess
import threading
import warnings
from contextlib import suppress

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csc_matrix, csr_matrix

from spatiagraph._walk import Walker, check_hdf5
from spatiagraph.data import make_tissue, write
from spatiagraph.data.read import read
from spatiagraph.data.read.structure import read_anndata

CELLS, GENES = 12, 5


def rich() -> AnnData:
    """An AnnData with every kind of element that its format knows."""
    rng = np.random.default_rng(0)
    adata = AnnData(
        csr_matrix(rng.poisson(2.0, (CELLS, GENES)) + np.eye(CELLS, GENES), dtype=np.float32),
        obs=pd.DataFrame(index=[f"c{i}" for i in range(CELLS)]),
        var=pd.DataFrame({"symbol": list("abcde")}, index=[f"g{i}" for i in range(GENES)]),
    )
    adata.obs["type"] = pd.Categorical(["a", "b", None] * 4, categories=["a", "b"])
    adata.obs["area"] = rng.normal(size=CELLS)
    adata.obs["number"] = pd.array([1, None] * 6, dtype="Int64")
    adata.obs["flag"] = pd.array([True, None] * 6, dtype="boolean")
    adata.obs["text"] = [f"t{i}" for i in range(CELLS)]
    adata.raw = adata.copy()
    adata.obsm["spatial"] = rng.uniform(0, 60, (CELLS, 2))
    adata.obsm["table"] = pd.DataFrame({"p": np.arange(CELLS)}, index=adata.obs_names)
    adata.obsm["sparse"] = adata.X.copy()
    adata.varm["loadings"] = rng.normal(size=(GENES, 3))
    adata.layers["counts"] = csc_matrix(adata.X)
    adata.obsp["pairs"] = csr_matrix(adata.X @ adata.X.T)
    adata.varp["pairs"] = rng.normal(size=(GENES, GENES))
    adata.uns = {
        "deep": {"er": np.arange(3), "word": "yes", "number": 2.5, "empty": {}},
        "list": np.array(["x", "y"], dtype=object),
    }
    return adata


def keys_of(path) -> list[str]:
    found: list[str] = []
    with h5py.File(path) as file:
        file.visit(found.append)
    return found


def make(path):
    rich().write_h5ad(path)
    return path


def replace(file, key, value):
    """Other values under the same key, with the attributes of the old ones."""
    attributes = dict(file[key].attrs)
    del file[key]
    file[key] = value
    file[key].attrs.update(attributes)


def delete(file, key):
    del file[key]


def scalar(file, key):
    replace(file, key, 7)


def text(file, key):
    replace(file, key, np.array(["a", "b"], dtype=h5py.string_dtype()))


def numbers(file, key):
    replace(file, key, np.linspace(0.5, 3.5, 4))


def complex_numbers(file, key):
    item = file[key]
    shape = item.shape if isinstance(item, h5py.Dataset) else (CELLS, GENES)
    replace(file, key, np.full(shape, 1 + 2j))


def nothing(file, key):
    replace(file, key, np.zeros(0))


def empty(file, key):
    replace(file, key, h5py.Empty("f8"))


def longer(file, key):
    item = file[key]
    if isinstance(item, h5py.Dataset) and item.shape:
        values = item[()]
        replace(file, key, np.concatenate([values, values[:1]]).astype(item.dtype))


def shorter(file, key):
    item = file[key]
    if isinstance(item, h5py.Dataset) and item.shape:
        replace(file, key, item[:-1].astype(item.dtype))


def turned(file, key):
    item = file[key]
    if isinstance(item, h5py.Dataset) and item.shape:
        replace(file, key, item[()].reshape(1, *item.shape).astype(item.dtype))


def group(file, key):
    attributes = dict(file[key].attrs)
    del file[key]
    file.create_group(key).attrs.update(attributes)


def loop(file, key):
    parent = file[key].parent
    del file[key]
    parent[key.rpartition("/")[2]] = parent


def other_encoding(file, key):
    file[key].attrs["encoding-type"] = "from-the-future"


def known_encoding(file, key):
    was = file[key].attrs.get("encoding-type")
    file[key].attrs["encoding-type"] = "dict" if was != "dict" else "array"


def number_as_encoding(file, key):
    file[key].attrs["encoding-type"] = 3


def other_version(file, key):
    file[key].attrs["encoding-version"] = "99.0"


def no_attributes(file, key):
    for name in list(file[key].attrs):
        del file[key].attrs[name]


def numbers_as_attributes(file, key):
    for name in list(file[key].attrs):
        file[key].attrs[name] = 3


def link_elsewhere(file, key):
    del file[key]
    file[key] = h5py.ExternalLink("/etc/hostname.h5", "/X")


def link_to_nothing(file, key):
    del file[key]
    file[key] = h5py.SoftLink("/nowhere")


def stored_elsewhere(file, key):
    """A dataset whose numbers are bytes of another file of the machine."""
    del file[key]
    file.create_dataset(key, (4,), "u1", external=[("/etc/hostname", 0, 4)])


def virtual(file, key):
    """A dataset that is put together from others, of other files."""
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource("/etc/hostname.h5", "X", (4,))
    del file[key]
    file.create_virtual_dataset(key, layout)


def type_without_numpy(file, key):
    del file[key]
    space, kind = h5py.h5s.create_simple((3,)), h5py.h5t.UNIX_D32LE
    h5py.h5d.create(file.id, key.encode(), kind, space)


def type_alone(file, key):
    """The definition of a type under the key, which holds nothing."""
    del file[key]
    file[key] = np.dtype("f8")


MUTATIONS = [
    delete, scalar, text, numbers, complex_numbers, nothing, empty, longer, shorter, turned, group,
    loop, other_encoding, known_encoding, number_as_encoding, other_version, no_attributes,
    numbers_as_attributes, link_elsewhere, link_to_nothing, stored_elsewhere, virtual,
    type_without_numpy, type_alone,
]  # fmt: skip


QUICK = {delete, scalar, longer, group, known_encoding, loop, type_alone}


def content(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slide = read(path, assume_um=True, image=False)
    return slide.counts.toarray(), slide.pos, list(slide.adata.obs_names), slide.symbols


def outcome(path):
    """What the refusal says, or else the content."""
    try:
        return None, content(path)
    except ValueError as err:
        return str(err), None


@pytest.mark.parametrize(
    "mutate",
    [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in MUTATIONS],
    ids=lambda f: f.__name__,
)
def test_any_damage_is_named_with_its_file_or_changes_nothing(tmp_path, mutate):
    whole = make(tmp_path / "whole.h5ad")
    bytes_of_it, expected = whole.read_bytes(), content(whole)
    for key in keys_of(whole):
        path = tmp_path / "a.h5ad"
        path.write_bytes(bytes_of_it)
        with h5py.File(path, "a") as file:
            mutate(file, key)
        said, found = outcome(path)
        if said is None:
            for have, want in zip(found, expected, strict=True):
                np.testing.assert_array_equal(have, want, err_msg=key)
            continue
        assert "\n" not in said, (key, said)
        assert "a.h5ad" in said or key.split("/")[0] in said, (key, said)


@pytest.mark.parametrize("mutate", [link_elsewhere, stored_elsewhere, virtual])
def test_values_of_another_file_are_not_opened(tmp_path, mutate):
    path = make(tmp_path / "a.h5ad")
    with h5py.File(path, "a") as file:
        mutate(file, "obsm/spatial")
    with pytest.raises(ValueError, match=r"a\.h5ad: obsm/spatial in the file itself, got a link"):
        content(path)


@pytest.mark.filterwarnings("ignore:.*zarr v2")
@pytest.mark.parametrize("key", ["X/data", "obsm/spatial", "obs/_index", "var/_index"])
def test_a_store_that_lacks_values_is_refused_and_not_read_as_zeros(tmp_path, key):
    store = tmp_path / "slide.zarr"
    adata = AnnData(csr_matrix(np.eye(6, 4, dtype=np.float32)), obsm={"spatial": np.ones((6, 2))})
    adata.obs["zero"] = pd.Categorical(["only"] * 6)  # codes that Zarr leaves out
    adata.write_zarr(store)
    assert read_anndata(store).shape == (6, 4)
    chunks = [p for p in (store / key).rglob("*") if p.is_file() and p.name[0].isdigit()]
    assert chunks
    for chunk in chunks:
        chunk.unlink()
    with pytest.raises(ValueError, match=rf"1 chunks of slide\.zarr: {key}(/values)?, got 0"):
        read_anndata(store)


def test_text_in_which_hdf5_would_walk_for_ever_is_refused(tmp_path):
    path = make(tmp_path / "slide.h5ad")
    content = bytearray(path.read_bytes())
    heaps = [i for i in range(len(content)) if content.startswith(b"GCOL", i)]
    assert heaps
    for heap in heaps:
        damaged = content.copy()
        size = int.from_bytes(damaged[heap + 8 : heap + 16], "little")
        damaged[heap + 16 : heap + size] = bytes(size - 16)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"slide\.h5ad, whose text .* byte {heap:,}"):
            read(path)


def test_a_layout_that_leads_hdf5_out_of_its_memory_is_refused(tmp_path):
    """Values of varying length that are neither lists nor text: to open them is a crash."""
    path = make(tmp_path / "slide.h5ad")
    whole = path.read_bytes()
    text = b"encoding-type\0\0\0\x19\x01"
    places = [i for i in range(len(whole)) if whole.startswith(text, i)]
    assert places
    for place in places[:3]:
        damaged = bytearray(whole)
        damaged[place + len(text) - 1] = 0x3D
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"readable HDF5 file, got slide\.h5ad, whose layout"):
            read(path)
    path.write_bytes(whole)
    assert read(path, assume_um=True).num_cells


@pytest.fixture
def endless(tmp_path):
    """A pipe that nobody writes to: who opens it waits for ever."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    os.mkfifo(tmp_path / "endless.h5ad")
    return tmp_path / "endless.h5ad"


def test_a_walk_through_a_file_that_does_not_end_is_ended(tmp_path, endless):
    path, walker = make(tmp_path / "slide.h5ad"), Walker()
    walker.check(path)
    walker.seconds = 0.2
    with pytest.raises(ValueError, match=r"endless\.h5ad, whose layout leads nowhere"):
        walker.check(endless)
    walker.seconds = 120
    walker.check(path)


def test_a_walk_that_was_interrupted_says_nothing_of_the_next_file(tmp_path, endless):
    whole, damaged = make(tmp_path / "whole.h5ad"), tmp_path / "damaged.h5ad"
    text = b"encoding-type\0\0\0\x19\x01"
    damaged.write_bytes(whole.read_bytes().replace(text, text[:-1] + b"\x3d"))
    walker = Walker()
    walker.check(whole)
    with pytest.raises(KeyboardInterrupt):  # after the question, before its answer
        check_and_stop(walker, endless)
    with suppress(OSError):  # whoever still waited would answer now
        os.close(os.open(endless, os.O_WRONLY | os.O_NONBLOCK))
    with pytest.raises(ValueError, match=r"damaged\.h5ad, whose layout leads nowhere"):
        walker.check(damaged)
    walker.check(whole)


def check_and_stop(walker, path):
    """Check a file, and press Ctrl-C meanwhile."""
    here = threading.main_thread().ident
    threading.Timer(0.3, signal.pthread_kill, (here, signal.SIGINT)).start()
    walker.check(path)


def test_a_walker_that_was_killed_is_begun_anew(tmp_path, monkeypatch):
    whole = make(tmp_path / "whole.h5ad")
    begun = []

    class Begun(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            begun.append(self)

    monkeypatch.setattr(subprocess, "Popen", Begun)
    walker = Walker()
    for _ in range(2):  # the second one by a process that was begun for it
        walker.check(whole)
        begun[-1].kill()
        begun[-1].wait()
    assert len(begun) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
def test_a_forked_process_walks_with_a_process_of_its_own(tmp_path):
    path = make(tmp_path / "slide.h5ad")
    check_hdf5(path)
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            check_hdf5(path)
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    check_hdf5(path)


@pytest.mark.parametrize("key", ["obs/_index", "obs/text", "var/symbol", "obsm/spatial"])
@pytest.mark.parametrize(
    ("value", "encoding"), [("a", "string"), (7, "numeric-scalar"), (h5py.Empty("f4"), "null")]
)
def test_a_column_that_is_one_value_or_none_is_refused(tmp_path, key, value, encoding):
    path = make(tmp_path / "a.h5ad")
    with h5py.File(path, "r+") as file:
        del file[key]
        file[key] = value
        version = "0.1.0" if encoding == "null" else "0.2.0"
        file[key].attrs.update({"encoding-type": encoding, "encoding-version": version})
    with pytest.raises(ValueError, match=rf"Expected .*a\.h5ad: {key}, got"):
        read(path, assume_um=True)


@pytest.mark.parametrize("notes", ["text", 3, [1, 2]])
def test_notes_that_are_no_group_are_refused(tmp_path, notes):
    adata = rich()
    adata.uns["spatiagraph"] = notes
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match=r"uns\['spatiagraph'\] to be a group of notes"):
        read(tmp_path / "a.h5ad", assume_um=True)


def test_a_file_of_very_many_objects_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("spatiagraph.data.read.structure.MOST_OBJECTS", 20)  # many take a minute
    with pytest.raises(ValueError, match="at most 32 levels and 20 objects in a.h5ad"):
        read(make(tmp_path / "a.h5ad"), assume_um=True)


@pytest.mark.parametrize(
    "other",
    [
        "tables/table/X/data",
        *(pytest.param(f"tables/table/{k}", marks=pytest.mark.slow) for k in ("obsm", "X")),
    ],
)
def test_metadata_of_another_part_of_a_store_are_refused_or_change_nothing(tmp_path, other):
    pytest.importorskip("spatialdata")
    tissue = make_tissue(20, num_types=3, num_genes=6, image="he", seed=0)
    adata, notes = tissue.adata, tissue.adata.uns["spatiagraph"]["synthetic"]
    adata.obs = adata.obs[["cell_type", "nucleus_major_um"]]  # one column of each kind, two notes
    adata.var = adata.var[["compartment", "neighbor_dependent"]]
    adata.uns["spatiagraph"]["synthetic"] = {name: notes[name] for name in ("image", "seed")}
    store = write(tissue, tmp_path / "a.zarr")
    wrong = (store / other / "zarr.json").read_bytes()
    expected, refused = read(store), 0
    for metadata in sorted(store.rglob("zarr.json")):
        right = metadata.read_bytes()
        metadata.write_bytes(wrong)
        found = outcome_of(store)
        metadata.write_bytes(right)
        if isinstance(found, str):
            assert found.startswith("Expected"), (metadata, found)
            refused += 1
            continue
        assert found.symbols == expected.symbols, metadata
        np.testing.assert_array_equal(found.pos, expected.pos, str(metadata))
        np.testing.assert_array_equal(found.counts.toarray(), expected.counts.toarray())
    assert refused > 20


def test_names_that_are_no_text_are_refused(tmp_path):
    path = make(tmp_path / "a.h5ad")
    with h5py.File(path, "r+") as file:
        file["obsm"][b"\xff\xfe"] = np.arange(CELLS)
    with pytest.raises(ValueError, match=r"names in UTF-8 in a\.h5ad: obsm, got b'"):
        read(path, assume_um=True)


@pytest.mark.slow
@pytest.mark.parametrize("word", [b"\xff" * 4, bytes(8), b"\0\0\0\x10"])
def test_words_of_the_file_that_are_others_are_refused_or_read(tmp_path, word):
    """Every 56th place of a file, so that headers, heaps, trees and values are all hit."""
    path = make(tmp_path / "a.h5ad")
    whole = path.read_bytes()
    refused = 0
    for place in range(8, len(whole) - len(word), 56):
        path.write_bytes(whole[:place] + word + whole[place + len(word) :])
        found = outcome_of(path)
        if isinstance(found, str):
            assert found.startswith("Expected"), (place, found)
            refused += 1
    assert refused > 100


def outcome_of(path):
    """The slide, or why there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return read(path, assume_um=True)
        except ValueError as err:
            return str(err)
