"""However a command ends, it says so in one line, and leaves nothing half-written."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest

COMMAND = [sys.executable, "-W", "ignore", "-c", "from spatiagraph.cli import app; app()"]


def broken(*arguments, **options):
    raise ZeroDivisionError("of no\nuse")


def test_a_mistake_of_ours_is_one_line_and_a_log_with_the_traceback(
    run, workplace, tmp_path, monkeypatch
):
    monkeypatch.setattr(h5py, "File", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    logs = []
    for _ in range(2):
        done = run("prepare", workplace / "slide.h5ad")
        assert done.exit_code == 70
        run.refused(done, "ZeroDivisionError: of no use", "please report", str(tmp_path))
        logs.append(Path(done.stderr.split()[-1]).read_text())
    assert len(list(tmp_path.iterdir())) == 2  # no log takes the place of another
    for log in logs:
        assert "Traceback" in log
        assert "in broken" in log
        assert "spatiagraph 0" in log


def test_debug_shows_the_traceback_instead(run, workplace, tmp_path, monkeypatch):
    monkeypatch.setattr(h5py, "File", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    done = run("--debug", "prepare", workplace / "slide.h5ad")
    assert isinstance(done.exception, ZeroDivisionError)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        "fit {work}/slide.h5ad --out {tmp}/out --lr nan",
        "fit {work}/slide.h5ad --out {tmp}/out --lr -1",
        "fit {work}/slide.h5ad --out {tmp}/out --lr 1e39",
        "fit {work}/slide.h5ad --out {tmp}/out --channels 9223372036854775808",
        "embed {work}/run {work}/slide.h5ad --tile 9999999999999999999 --out {tmp}/out.h5ad",
        "fit {work}/slide.h5ad --out {tmp}/out --seed -1",
        "fit {work}/slide.h5ad --out {tmp}/out --window-um inf",
        "fit {work}/slide.h5ad --out {tmp}/out --origin-um nan 0",
        "demo {work}/slide.h5ad --out {tmp}/out --seed 4294967296",
        "embed {work}/run {work}/slide.h5ad --out {tmp}/new/out.h5ad --device meta",
        "search {work}/embedded.h5ad --cell cell1 --apart-um nan --out {tmp}/new/hits.csv",
        "search {work}/embedded.h5ad --cell cell1 -k 500 --save-index {tmp}/index",
        "morphology {work}/slide.h5ad --out {tmp}/out --accelerator abacus",
        "generate {work}/embedded.h5ad --states cell_type --transition a:b --guidance nan "
        "--out {tmp}/out",
    ],
)
def test_nothing_is_made_before_all_arguments_are_known_to_be_good(
    run, workplace, tmp_path, arguments
):
    done = run(*(a.format(work=workplace, tmp=tmp_path) for a in arguments.split()))
    assert done.exit_code in (1, 2), done.output
    assert "Traceback" not in done.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGINT, signal.SIGHUP)),
    ],
)
def test_a_signal_leaves_nothing_half_written(run, tmp_path, number):
    slide = run.tissue(tmp_path / "a.h5ad")
    out = tmp_path / "run"
    arguments = ["fit", slide, "--out", out, "--epochs", 10_000, "--channels", 8]
    process = subprocess.Popen(
        [*COMMAND, *(str(a) for a in arguments), "--accelerator", "cpu"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 600
    while not (out / "checkpoints" / "before.ckpt").is_file():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    said, error = process.communicate(timeout=600)
    assert process.returncode == 128 + number
    assert "the same command goes on" in said
    assert "Traceback" not in error
    last = "interrupted" if number == signal.SIGINT else "terminated"
    assert error.splitlines()[-1] == last  # not behind the bar
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".")]


def test_names_that_are_no_unicode_are_refused_in_one_line(run):
    done = run("prepare", os.fsdecode(b"\xff.h5ad"))
    assert done.exit_code == 2
    assert "is no UTF-8 text: rename it" in " ".join(done.stderr.replace("│", " ").split())


def test_memory_that_is_not_there_is_one_line_with_what_takes_less(run, workplace, monkeypatch):
    def asks_for_much(*arguments, **options):
        raise RuntimeError("can't allocate memory: you tried to allocate 96000000000 bytes. Error")

    monkeypatch.setattr(h5py, "is_hdf5", asks_for_much)
    run.refused(
        run("prepare", workplace / "slide.h5ad"), "not enough memory: Expected 96 GB more at once"
    )
