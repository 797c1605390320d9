"""A saved index is opened as it was written, or not at all."""

import json
import shutil
from zipfile import ZIP_BZIP2, ZipFile

import faiss
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from spatiagraph.retrieval import NicheIndex, SlideCalibration, backend, storage

KINDS = ("flat", "ivf", "hnsw")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """One index of each kind, calibrated."""
    folder = tmp_path_factory.mktemp("indexes")
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(400, 6)).astype(np.float32)
    obs = pd.DataFrame({"slide_id": np.repeat(["a", "b"], 200), "area": rng.uniform(size=400)})
    return {
        kind: NicheIndex.build(
            embeddings, obs, kind=kind, calibrate="slide", key="X", min_recall=0.1
        ).save(folder / kind)
        for kind in KINDS
    }


@pytest.fixture
def copy(saved, tmp_path):
    def copied(kind="flat"):
        return shutil.copytree(saved[kind], tmp_path / "index")

    return copied


EDITS = {
    "metric": "l2",
    "kind": "hnsw",
    "effort": 3,
    "calibrated": False,
    "seed": 1,
    "recall": 0.5,
    "min_recall": 0.5,
    "num_items": 399,
    "channels": 5,
    "model": "abc",
    "key": "Y",
    "spatiagraph": "9.9",
    "hash": "0" * 64,
}


@pytest.mark.parametrize("key", EDITS)
def test_an_edited_configuration_is_refused(copy, key):
    path = copy()
    config = json.loads((path / "config.json").read_text())
    assert config[key] != EDITS[key]
    (path / "config.json").write_text(json.dumps({**config, key: EDITS[key]}))
    with pytest.raises(ValueError, match="damaged, build it again .*: its parts are not those"):
        NicheIndex.load(path)


@pytest.mark.parametrize("key", EDITS)
def test_every_key_of_the_configuration_is_needed_and_has_its_type(copy, key):
    path = copy()
    config = json.loads((path / "config.json").read_text())
    for value in ([], {"a": 1}, "flat" if isinstance(config[key], int | float) else 0.5):
        (path / "config.json").write_text(json.dumps({**config, key: value}))
        with pytest.raises(ValueError, match=key if key != "hash" else "its parts"):
            NicheIndex.load(path)
    del config[key]
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"'{key}'" if key != "hash" else "its parts"):
        NicheIndex.load(path)


@pytest.mark.parametrize("part", ["calibration.npz", "obs.parquet", "index.faiss"])
def test_any_changed_byte_of_any_part_is_refused(copy, part):
    path = copy() / part
    whole = path.read_bytes()
    for place in np.linspace(0, len(whole) - 1, 9).astype(int):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match="damaged"):
            NicheIndex.load(path.parent)
    for other in (b"", whole[:-1], whole + b"\0"):
        path.write_bytes(other)
        with pytest.raises(ValueError, match="damaged"):
            NicheIndex.load(path.parent)


@pytest.mark.parametrize("part", ["index.faiss", "config.json"])
def test_parts_of_two_indexes_are_refused(saved, copy, part):
    path = copy("ivf")
    shutil.copy(saved["flat"] / part, path / part)
    with pytest.raises(ValueError, match="damaged"):
        NicheIndex.load(path)


@pytest.mark.parametrize("version", [1, 2, 4, "3", None])
def test_an_index_of_another_version_says_how_to_build_it(copy, version):
    path = copy()
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "version": version}))
    with pytest.raises(ValueError, match=f"of version {version!r}.*NicheIndex.from_slides"):
        NicheIndex.load(path)


def rehashed(path):
    """The folder with the hash of what it holds now, as one could forge it."""
    config = json.loads((path / "config.json").read_text())
    del config["hash"]
    known = storage.IndexConfig(**config)
    config["hash"] = storage.content_hash(path, known)
    (path / "config.json").write_text(json.dumps(config))


def swap(index, name, change):
    values = faiss.vector_to_array(getattr(index.hnsw, name))
    faiss.copy_array_to_vector(change(values).astype(values.dtype), getattr(index.hnsw, name))


def set_vector(index):
    store = faiss.downcast_index(index.storage) if isinstance(index, faiss.IndexHNSW) else index
    faiss.rev_swig_ptr(store.get_xb(), 6)[3] = np.nan


def set_id(index):
    lists = index.invlists
    number = next(n for n in range(index.nlist) if lists.list_size(n))
    faiss.rev_swig_ptr(lists.get_ids(number), 1)[0] = 10**9


FORGED = {
    "a vector that is not finite": ("flat", set_vector),
    "a vector of a graph": ("hnsw", set_vector),
    "an item that is not there": ("ivf", set_id),
    "a link to nothing": (
        "hnsw",
        lambda i: swap(i, "neighbors", lambda v: np.where(v == 5, 999, v)),
    ),
    "links beyond the end": ("hnsw", lambda i: swap(i, "offsets", lambda v: v + 10**6)),
    "levels": ("hnsw", lambda i: swap(i, "levels", lambda v: v + 50)),
    "all on one level": ("hnsw", lambda i: swap(i, "levels", np.ones_like)),
    "an entry": ("hnsw", lambda i: setattr(i.hnsw, "entry_point", 10**6)),
    "a level without items": ("hnsw", lambda i: setattr(i.hnsw, "max_level", 3000)),
}


@pytest.mark.parametrize("name", FORGED)
def test_what_faiss_would_follow_blindly_is_looked_at_even_with_the_right_hash(copy, name):
    kind, change = FORGED[name]
    path = copy(kind)
    index = faiss.read_index(str(path / "index.faiss"))
    change(index)
    faiss.write_index(index, str(path / "index.faiss"))
    rehashed(path)
    with pytest.raises(ValueError, match="damaged"):
        NicheIndex.load(path)
    with pytest.raises(ValueError, match=r"finite|lists|links"):
        backend.check_index(index, kind, "cosine", 6)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_that_do_not_fit_are_refused_with_the_right_hash(copy, saved, kind):
    path = copy(kind)
    other = KINDS[(KINDS.index(kind) + 1) % 3]
    shutil.copy(saved[other] / "index.faiss", path / "index.faiss")
    rehashed(path)
    with pytest.raises(ValueError, match=f"is not a {kind} index"):
        NicheIndex.load(path)
    for name, data in (("index.faiss", b"IxFI"), ("obs.parquet", b"PAR1PAR1")):
        (path / name).write_bytes(data)
        rehashed(path)
        with pytest.raises(ValueError, match="damaged"):
            NicheIndex.load(path)


@pytest.mark.parametrize("broken", [np.nan, np.inf, 0, -1])
def test_a_calibration_that_is_not_finite_is_refused(copy, broken):
    path = copy()
    with np.load(path / "calibration.npz") as file:
        parts = dict(file)
    np.savez(path / "calibration.npz", **{**parts, "scale": np.array([1, broken], np.float32)})
    rehashed(path)
    with pytest.raises(ValueError, match="finite scales above zero"):
        NicheIndex.load(path)
    np.savez(path / "calibration.npz", **{**parts, "mean": parts["mean"][:, :5]})
    rehashed(path)
    with pytest.raises(ValueError, match="calibration of 5 channels for 6"):
        NicheIndex.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slides": np.array([{}, 1], object)}, "slides of calibration.npz is object of shape"),
        ({"slides": np.array([["a", "b"]])}, "slides of calibration.npz is <U1 of shape .1, 2."),
        ({"mean": np.full((2, 6), "x")}, "mean of calibration.npz is <U1"),
        ({"mean": np.zeros((2, 0))}, "mean of calibration.npz is float64 of shape .2, 0."),
        (
            {"mean": np.zeros((2, 2**22 + 1))},
            "mean of .* claims to hold 67,108,880 bytes",
        ),
    ],
)
def test_arrays_of_a_calibration_are_looked_at_before_they_are_read(copy, change, message):
    path = copy()
    with np.load(path / "calibration.npz") as file:
        parts = dict(file)
    # bzip2 packs zeros a thousand times tighter than what numpy writes
    with ZipFile(path / "calibration.npz", "w", ZIP_BZIP2) as archive:
        for name, values in {**parts, **change}.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, values)
    rehashed(path)
    with pytest.raises(ValueError, match=message):
        NicheIndex.load(path)


def test_a_calibration_that_is_no_archive_of_arrays_is_refused(copy):
    path = copy()
    for content in (b"\x93NUMPY\x01\x00", b"PK\x05\x06" + bytes(18)):  # an array, and nothing
        (path / "calibration.npz").write_bytes(content)
        rehashed(path)
        with pytest.raises(ValueError, match="calibration.npz cannot be read"):
            NicheIndex.load(path)


def test_metadata_whose_notes_fit_no_table_are_refused(copy):
    path = copy()
    table = pq.read_table(path / "obs.parquet")
    notes = {b"pandas": b'{"index_columns": ["nope"], "columns": [], "column_indexes": []}'}
    pq.write_table(table.replace_schema_metadata(notes), path / "obs.parquet")
    rehashed(path)
    with pytest.raises(ValueError, match="obs.parquet cannot be read"):
        NicheIndex.load(path)


def test_a_calibration_of_other_shapes_is_refused():
    for slides, mean, scale in (
        (["a"], np.ones((2, 3)), np.ones(1)),
        (["a", "a"], np.ones((2, 3)), np.ones(2)),
        (["a", "b"], np.ones(2), np.ones(2)),
        (["a", "b"], np.ones((2, 3)), np.ones((2, 1))),
    ):
        with pytest.raises(ValueError, match="different slides"):
            SlideCalibration(slides, mean, scale)


def test_a_large_graph_as_it_was_built_passes(tmp_path):
    index = NicheIndex.build(np.random.default_rng(0).normal(size=(5000, 4)), kind="hnsw")
    index.save(tmp_path / "index")
    assert NicheIndex.load(tmp_path / "index").num_items == 5000  # which looks at its graph


def test_a_map_that_leads_to_other_items_is_refused(copy):
    path = copy("ivf")
    index = faiss.read_index(str(path / "index.faiss"))
    index.set_direct_map_type(faiss.DirectMap.Array)
    places = faiss.vector_to_array(index.direct_map.array)
    places[[0, 1]] = places[[1, 0]]
    faiss.copy_array_to_vector(places, index.direct_map.array)
    faiss.write_index(index, str(path / "index.faiss"))
    rehashed(path)
    with pytest.raises(ValueError, match="a map of items that leads to others"):
        NicheIndex.load(path)
