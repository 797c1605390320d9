"""Frozen features on the disk: read where they are whole, computed anew where they are not."""

import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from spatiagraph.data.feature_cache import FeatureCache, cache_key

VALUES = torch.arange(12.0).reshape(4, 3)


class Counted:
    """Computes features, and counts how often."""

    def __init__(self, values=VALUES):
        self.values, self.times = values, 0

    def __call__(self):
        self.times += 1
        return self.values


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "features")


def test_features_are_computed_once_and_read_by_others_from_then_on(cache):
    compute = Counted()
    first = cache.get("a", compute, num_rows=4)
    again = FeatureCache(cache.folder).get("a", compute, num_rows=4)
    assert compute.times == 1
    assert torch.equal(first, VALUES)
    assert torch.equal(again, VALUES)
    assert [file.name for file in cache.folder.iterdir()] == ["a.safetensors"]
    assert cache.get("b", Counted(VALUES.numpy() + 1))[0, 0] == 1


@pytest.mark.parametrize("harm", ["cut", "empty", "zeros", "flipped", "text", "other key"])
def test_a_damaged_file_is_named_and_computed_anew_never_read_as_zeros(cache, caplog, harm):
    cache.get("a", Counted())
    file = cache.path("a")
    data = bytearray(file.read_bytes())
    end = len(data) - 4 * VALUES.numel()
    if harm == "cut":
        data = data[:-5]
    elif harm == "empty":
        data = bytearray()
    elif harm == "zeros":  # a block that never reached the disk
        data[end:] = bytes(len(data) - end)
    elif harm == "flipped":
        data[end + 6] ^= 1
    elif harm == "text":
        data = bytearray(b"<html>not found</html>")
    if harm == "other key":
        cache.get("b", Counted(VALUES + 1))
        data = bytearray(cache.path("b").read_bytes())
    file.write_bytes(data)
    compute = Counted()
    with caplog.at_level(logging.WARNING):
        assert torch.equal(cache.get("a", compute), VALUES)
    assert compute.times == 1
    assert "a.safetensors is damaged: computing its features anew" in caplog.text
    caplog.clear()
    assert torch.equal(cache.get("a", compute), VALUES)
    assert compute.times == 1
    assert not caplog.text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (VALUES[0], r"features \[N, D\], got torch.float32 \[3\]"),
        (VALUES.long(), r"features \[N, D\], got torch.int64"),
        (VALUES / 0, "finite features, got NaN or infinity in 4 of 4 rows"),
        (VALUES[:3], "4 rows of features, got 3"),
    ],
)
def test_what_is_no_features_is_refused_and_not_kept(cache, values, message):
    with pytest.raises(ValueError, match=message):
        cache.get("a", Counted(values), num_rows=4)
    assert not cache.path("a").exists()


def test_nothing_is_left_where_computing_fails(cache):
    def failing():
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        cache.get("a", failing)
    assert not cache.folder.exists()


@pytest.mark.parametrize("key", ["", "../a", "a/b", "a.b", "ä"])
def test_a_key_is_no_path(cache, key):
    with pytest.raises(ValueError, match="a key of letters, digits"):
        cache.get(key, Counted())


def test_a_key_tells_every_content_apart():
    sparse = csr_matrix(np.array([[0, 1.0], [2.0, 0]]))
    parts = [
        (VALUES,), (VALUES.T,), (VALUES.double(),), (VALUES.numpy(),), (VALUES + 1,),
        (VALUES, 1), (VALUES, 1.0), (VALUES, True), (VALUES, "1"), ("1", VALUES), (VALUES, None),
        ({"a": VALUES},), ({"b": VALUES},), ((VALUES, "a"),), (sparse,), (sparse.T.tocsr(),),
        ("ab", "c"), ("a", "bc"), (("a", "b"), "c"), (("a",), ("b", "c")),
    ]  # fmt: skip
    keys = [cache_key(*each) for each in parts]
    assert len(set(keys)) == len(parts)
    assert keys == [cache_key(*each) for each in parts]
    assert cache_key(VALUES.T) == cache_key(VALUES.T.contiguous())
    assert cache_key({"a": 1, "b": 2}) == cache_key({"b": 2, "a": 1})
    with pytest.raises(TypeError, match="got object"):
        cache_key(object())
    with pytest.raises(TypeError, match="got ndarray"):
        cache_key(np.array([object()]))


def test_a_key_is_the_same_in_another_process():
    code = (
        "import torch; from spatiagraph.data.feature_cache import cache_key;"
        "print(cache_key('resnet18', {'w': torch.ones(2, 2), 'b': torch.zeros(2)}, 100.0))"
    )
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True, text=True, check=True, env=env,
    )  # fmt: skip
    weights = {"b": torch.zeros(2), "w": torch.ones(2, 2)}
    assert done.stdout.strip() == cache_key("resnet18", weights, 100.0)


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    compute = Counted()
    with pytest.raises(NotADirectoryError, match=r"a folder to write to, .*file is a file"):
        FeatureCache(tmp_path / "file" / "features").get("a", compute)
    assert compute.times == 0


def test_threads_of_a_process_write_one_entry_side_by_side(cache):
    def read(number):
        return torch.equal(cache.get(f"entry{number // 4}", lambda: VALUES), VALUES)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(160)))
    assert not [path for path in cache.folder.iterdir() if path.name.startswith(".")]


def test_a_folder_and_numbers_of_8_bits_are_refused(cache):
    cache.path("taken").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"Expected a file .* found a folder"):
        cache.get("taken", lambda: VALUES)
    with pytest.raises(ValueError, match=r"Expected features .* got torch\.float8"):
        cache.get("small", lambda: VALUES.to(torch.float8_e4m3fn))
