"""Whatever is written takes the place of the old when it is complete, and not before."""

import pytest

from spatiagraph._files import replaced_file, replaced_folder


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
