"""A cohort killed while it is written, embedded or trained on ends as if it had not been."""

import os
import shutil
import signal
import time

import numpy as np
import pytest

from spatiagraph.data import make_tissue, write

MOMENTS = int(os.environ.get("SPATIAGRAPH_KILLS", "20"))  # of each command

pytestmark = pytest.mark.slow


def content(folder):
    """Bytes of all files, without the times that a run notes."""
    files = {p.relative_to(folder): p for p in folder.rglob("*") if p.is_file()}
    times = ("history.csv", "events", "checkpoints")
    return {n: p.read_bytes() for n, p in files.items() if not any(t in str(n) for t in times)}


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    for seed in (0, 1):
        slide = make_tissue(300, num_genes=20, image=None, seed=seed, slide_id=f"s{seed}")
        slide.adata.obs, slide.adata.var = (
            slide.adata.obs[["cell_type"]],
            slide.adata.var.iloc[:, :0],
        )
        write(slide, folder / f"s{seed}.h5ad")
    return [folder / "s0.h5ad", folder / "s1.h5ad"]


@pytest.fixture(scope="module")
def made(commands, slides, tmp_path_factory):
    """A cohort, and a run on it."""
    folder = tmp_path_factory.mktemp("made")
    for line in (
        ("prepare", *slides, "--cohort", folder / "c.zarr", "--genes", 15, "--tile-size", 64),
        ("fit", folder / "c.zarr", "--out", folder / "run", "--epochs", 1, "--channels", 8),
    ):
        done = commands(*line)
        assert done.code == 0, done.said
    return folder


def line_of(name, slides, made, out):
    """The command, and what it starts from."""
    out.mkdir()
    if name == "prepare":
        return ("prepare", *slides, "--cohort", out / "c.zarr", "--genes", 15, "--tile-size", 64)
    if name == "fit":
        return ("fit", made / "c.zarr", "--out", out / "run", "--epochs", 2, "--channels", 8)
    shutil.copytree(made / "c.zarr", out / "c.zarr")
    return ("embed", made / "run", out / "c.zarr")


@pytest.mark.parametrize("name", ["prepare", "fit", "embed"])
def test_a_cohort_killed_at_any_moment_ends_in_the_same_bytes(
    commands, slides, made, tmp_path, name
):
    line = line_of(name, slides, made, tmp_path / "whole")
    begun = time.monotonic()
    done = commands(*line)
    seconds = time.monotonic() - begun
    assert done.code == 0, done.said
    expected = content(tmp_path / "whole")
    random = np.random.default_rng(0)
    killed = remained = 0
    for moment in range(MOMENTS):
        out = tmp_path / f"killed{moment}"
        line = line_of(name, slides, made, out)
        before = content(out)
        process = commands.start(*line)
        time.sleep(seconds * random.uniform(0.1, 0.8))
        os.kill(process, signal.SIGKILL)
        if commands.wait().code == -signal.SIGKILL:
            killed += 1
            remained += content(out) != before
        again = commands(*line)
        assert again.code == 0, again.said
        assert content(out) == expected, f"moment {moment}"
    print(f"{name}: {killed} of {MOMENTS} killed, {remained} of them had begun to write")
    assert remained > 0
