"""Work of different settings: each in a folder of its own, and none ends that of another."""

import errno
import fcntl

import pytest

from spatiagraph._json import Schema
from spatiagraph.data.cohort import BusyError
from spatiagraph.data.cohort.shards import Shard, write_state
from spatiagraph.data.cohort.work import begin_work, shards_begun, whole_work, work_settings


class Settings(Schema):
    seed: int


def finish(folder, *numbers):
    for number in numbers:
        write_state(folder, Shard(number, 2), 10)


def test_work_begins_unless_that_of_other_settings_runs_or_is_done(tmp_path):
    place = tmp_path / "work"
    with shards_begun(place, Settings(seed=0), "seed", [Shard(0, 2)]) as first:
        with pytest.raises(BusyError, match="Expected the seed of the shards that run now"):
            begin_work(place, Settings(seed=1), "seed")
        with pytest.raises(BusyError), shards_begun(place, Settings(seed=0), "seed", [Shard(0, 2)]):
            pass
        with shards_begun(place, Settings(seed=0), "seed", [Shard(1, 2)]) as same:
            assert same == first
    second = begin_work(place, Settings(seed=1), "seed")
    assert second != first
    assert not first.exists()
    assert work_settings(second, Settings) == Settings(seed=1)
    finish(second, 1)
    with pytest.raises(ValueError, match="Expected the seed of the shards that are done .*1/2"):
        begin_work(place, Settings(seed=0), "seed")
    assert begin_work(place, Settings(seed=1), "seed") == second


def test_without_locks_shards_of_different_settings_lie_apart_and_are_not_merged(
    tmp_path, monkeypatch
):
    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    with shards_begun(tmp_path, Settings(seed=0), "seed", [Shard(0, 2)]) as first:
        second = begin_work(tmp_path, Settings(seed=1), "seed")
        finish(second, 1)
        finish(first, 0)  # together they would be whole
    with pytest.raises(ValueError, match=f"found some of others in .*{second.name}"):
        whole_work(tmp_path)


def test_whole_work_is_that_of_which_all_shards_are_done(tmp_path):
    with pytest.raises(FileNotFoundError, match="there are none"):
        whole_work(tmp_path)
    folder = begin_work(tmp_path, Settings(seed=0), "seed")
    with pytest.raises(ValueError, match="finished shards .* found none"):
        whole_work(tmp_path)
    finish(folder, 0)
    with pytest.raises(ValueError, match="none of 1/2"):
        whole_work(tmp_path)
    finish(folder, 1)
    assert whole_work(tmp_path) == folder
