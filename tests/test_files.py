"""Whatever is written takes the place of the old when it is complete, and not before."""

import resource
from contextlib import contextmanager

import faiss
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
import zarr
from PIL import Image
from safetensors.torch import save_file

from spatiagraph._files import DiskFullError, full_disk_named, replaced_file, replaced_folder
from spatiagraph.data.zarr_tasks import zarr_writers_ended

NOISE = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8)  # cannot be compressed


@contextmanager
def no_more_than(size):
    """No file grows beyond so many bytes, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_zarr(path):
    with zarr_writers_ended():
        zarr.create_array(str(path), data=NOISE, chunks=(50_000,))


def write_faiss(path):
    path.mkdir()
    index = faiss.IndexFlatL2(10)
    index.add(NOISE.reshape(-1, 10).astype(np.float32))
    faiss.write_index(index, str(path / "index"))


FILES = {
    "text": lambda path: path.write_text("a" * len(NOISE)),
    "safetensors": lambda path: save_file({"a": torch.from_numpy(NOISE)}, path),
    "torch": lambda path: torch.save(torch.from_numpy(NOISE), path),
    "csv": lambda path: pd.DataFrame({"a": NOISE}).to_csv(path),
    "parquet": lambda path: pd.DataFrame({"a": NOISE}).to_parquet(path),
    "npz": lambda path: np.savez(path, a=NOISE),
    "tif": lambda path: tifffile.imwrite(path, NOISE.reshape(500, -1)),
    "png": lambda path: Image.fromarray(NOISE.reshape(500, -1)).save(path),
}
FOLDERS = {"zarr": write_zarr, "faiss": write_faiss}


@pytest.mark.parametrize("fails", [False, True])
def test_a_file_takes_the_place_of_another_or_leaves_it(tmp_path, fails):
    target, link = tmp_path / "scores.csv", tmp_path / "link.csv"
    target.write_text("old")
    link.symlink_to(target)
    try:
        with replaced_file(link) as new:
            assert new.suffix == ".csv"
            new.write_text("fresh")
            if fails:
                raise OSError("full")
    except OSError:
        assert fails
    assert target.read_text() == ("old" if fails else "fresh")
    assert link.is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.csv", "scores.csv"]


def test_a_new_file_gets_its_folders(tmp_path):
    with replaced_file(tmp_path / "a" / "b" / "run.json") as new:
        new.write_text("{}")
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["run.json"]


@pytest.mark.parametrize("fails", [False, True])
def test_a_folder_takes_the_place_of_another_or_leaves_it(tmp_path, fails):
    target, link = tmp_path / "store", tmp_path / "link"
    for folder in (target, tmp_path / ".store.new"):  # the second of a run that was killed
        folder.mkdir()
        (folder / "old").touch()
    link.symlink_to(target)
    try:
        with replaced_folder(link) as new:
            new.mkdir()
            (new / "fresh").touch()
            if fails:
                raise OSError("full")
    except OSError:
        assert fails
    assert [p.name for p in link.iterdir()] == ["old" if fails else "fresh"]
    assert link.is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "store"]


def test_a_file_in_the_place_of_a_folder_is_refused_before_the_work(tmp_path):
    (tmp_path / "store").touch()
    with (
        pytest.raises(NotADirectoryError, match="store is a file"),
        replaced_folder(tmp_path / "store"),
    ):
        raise AssertionError("work")


@pytest.mark.parametrize("replaced", [replaced_file, replaced_folder])
@pytest.mark.parametrize("below", ["a/b", "a"])
def test_a_file_on_the_way_to_the_place_is_named(tmp_path, replaced, below):
    (tmp_path / "file").write_text("text")
    with (
        pytest.raises(NotADirectoryError, match="Expected a folder to write to, .*file is a file"),
        replaced(tmp_path / "file" / below),
    ):
        pass
    assert (tmp_path / "file").read_text() == "text"


@pytest.mark.parametrize("kind", [*FILES, *FOLDERS])
def test_a_full_disk_is_one_error_that_names_the_path_whatever_library_writes(tmp_path, kind):
    target = tmp_path / f"scores.{kind}"
    replaced = replaced_file if kind in FILES else replaced_folder
    with replaced(target) as old:
        old.touch() if kind in FILES else old.mkdir()
    with (
        pytest.raises(DiskFullError, match="File too large: free some space") as raised,
        no_more_than(20_000),
        replaced(target) as new,
    ):
        ({**FILES, **FOLDERS})[kind](new)
    assert raised.value.filename == str(target)
    assert raised.value.strerror in str(raised.value)
    assert target.exists()
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


def write_beside(path):
    """Fill another place on the way to a file."""
    other = path.parent / "other"
    try:
        other.write_text("a" * 100)
    except OSError as err:
        raise OSError(err.errno, err.strerror, str(other)) from err


def raise_key_error(path):
    path.write_text("x")
    raise KeyError("area")


def test_what_is_full_may_be_another_place(tmp_path):
    with (
        pytest.raises(DiskFullError) as raised,
        no_more_than(10),
        full_disk_named(tmp_path / "run" / "model"),
    ):
        write_beside(tmp_path / "file")
    assert raised.value.filename == str(tmp_path / "other")


def test_other_errors_pass_as_they_are(tmp_path):
    with pytest.raises(KeyError, match="area"), replaced_file(tmp_path / "a.csv") as new:
        raise_key_error(new)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("replaced", [replaced_file, replaced_folder])
def test_a_link_that_leads_to_itself_is_named(tmp_path, replaced):
    (tmp_path / "a").symlink_to("a")
    with pytest.raises(OSError, match="a is a link that leads to itself"):
        with replaced(tmp_path / "a"):
            pass
