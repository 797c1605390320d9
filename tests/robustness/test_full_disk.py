"""On a disk of 2 MB every command says in one line what is full, and what was there is whole."""

import os
import subprocess
import sys

import pytest

SIZE = 2 * 2**20
FREE = (0, 4_096, 100_000, 600_000)  # bytes that are left when a command begins
COMMANDS = [
    *("fit", "embed", "prepare h5ad", "prepare zarr", "search", "report", "evaluate"),
    *("domains", "colocalize", "perturb", "morphology", "generate", "demo"),
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0, reason="needs to mount a file system"
    ),
]


@pytest.fixture
def disk(tmp_path):
    """A file system of 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", place],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"cannot mount a file system: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def enlarge(disk):
    subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)


@pytest.mark.parametrize("free", FREE)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_named_and_old_files_are_whole(
    commands, material, lines, contents_of, tmp_path, disk, name, free
):
    out = disk / "out"
    line = lines(material, out)[name]
    old = tmp_path / "old"
    (disk / "old.txt").write_text("old")
    (disk / "filler").write_bytes(bytes(SIZE - 8192 - free))
    done = commands(*line)
    assert "Traceback" not in done.said
    hidden = [p for p in disk.rglob(".*") if ".new" in p.name]
    assert not hidden, done.said
    if done.code != 0:
        assert done.code == 1, done.said
        assert len(done.errors) == 1, done.said
        assert "No space left on device" in done.errors[0]
        assert str(out) in done.errors[0]
    assert (disk / "old.txt").read_text() == "old"
    enlarge(disk)
    (disk / "filler").unlink()
    again = commands(*line)  # goes on where it stopped, if it does so
    assert again.code == 0, again.said
    whole = commands(*lines(material, old)[name])
    assert whole.code == 0, whole.said
    assert contents_of(out) == contents_of(old)


@pytest.mark.parametrize("name", [n for n in COMMANDS if n not in ("fit", "demo")])
def test_results_that_are_there_stay_as_they_are(
    commands, material, lines, contents_of, disk, name
):
    out = disk / "out"
    enlarge(disk)
    assert commands(*lines(material, out)[name]).code == 0
    before = contents_of(out)
    used = sum(path.stat().st_blocks * 512 for path in disk.rglob("*") if path.is_file())
    subprocess.run(["mount", "-o", f"remount,size={used + 2**16}", disk], check=True)
    done = commands(*lines(material, out)[name])
    assert "Traceback" not in done.said
    assert done.code in (0, 1), done.said
    if done.code:
        assert len(done.errors) == 1
        assert "No space left on device" in done.errors[0]
    assert contents_of(out) == before  # the same line writes the same
