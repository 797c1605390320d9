"""Bad input gets one clear line, an exit code that is not zero, and leaves nothing half-written."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import anndata
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from torch.testing import assert_close

from spatiagraph.data import make_tissue

COMMAND = [sys.executable, "-c", "from spatiagraph.cli import app; app()"]


def change(path, edit, **arguments):
    """Write tissue with something wrong."""
    adata = make_tissue(300, num_genes=40, **arguments).adata
    adata.layers.clear()
    adata.X = adata.X.toarray().astype(np.float32)
    changed = edit(adata)
    (adata if changed is None else changed).write_h5ad(path)
    return path


def set_position(value):
    def edit(adata):
        adata.obsm["spatial"][[3, 9], 0] = value

    return edit


def set_count(value):
    def edit(adata):
        adata.X[5, 2] = value

    return edit


def rename_twice(adata):
    names = adata.obs_names.to_list()
    names[8] = names[4]
    adata.obs_names = names


def in_pixels(adata):
    adata.obsm["spatial"] = adata.obsm["spatial"] / 0.05


def empty_cells(adata):
    adata.X[[1, 6]] = 0


def without_coordinates(adata):
    del adata.obsm["spatial"]


BAD_SLIDES = {
    "no coordinates": (without_coordinates, ["obsm['spatial']"]),
    "a coordinate is NaN": (set_position(np.nan), ["cell3", "cell9"]),
    "a coordinate is infinite": (set_position(np.inf), ["cell3", "cell9"]),
    "pixels": (in_pixels, ["µm", "mpp"]),
    "a cell id twice": (rename_twice, ["cell4"]),
    "a negative count": (set_count(-1), ["cell5"]),
    "a fractional count": (set_count(0.5), ["cell5", "normalized"]),
    "no cells": (lambda adata: adata[:0].copy(), ["cell"]),
    "one cell": (lambda adata: adata[:1].copy(), ["cell"]),
    "fewer cells than neighbours": (lambda adata: adata[:10].copy(), ["at least 16", "10"]),
    "cells without counts": (empty_cells, ["cell1", "cell6", "--drop-empty"]),
}


@pytest.mark.parametrize("name", BAD_SLIDES)
def test_a_slide_that_cannot_be_right_is_refused(run, tmp_path, name):
    edit, words = BAD_SLIDES[name]
    slide = change(tmp_path / "bad.h5ad", edit)
    run.refused(run("fit", slide, "--out", tmp_path / "run", *run.small), *words)
    assert not (tmp_path / "run").exists()


def test_a_missing_file_is_named(run, tmp_path):
    done = run("fit", tmp_path / "nowhere.h5ad", "--out", tmp_path / "run")
    run.refused(done, "nowhere.h5ad")


def test_a_file_that_is_no_h5ad_is_refused(run, tmp_path):
    (tmp_path / "text.h5ad").write_text("cells")
    run.refused(run("fit", tmp_path / "text.h5ad", "--out", tmp_path / "run"), "HDF5")


def test_an_image_that_cannot_be_decoded_is_refused(run, tmp_path):
    slide, image = run.tissue(tmp_path / "a.h5ad"), tmp_path / "he.png"
    image.write_bytes(b"no picture")
    arguments = ["--image", image, "--image-mpp", 0.5, "--out", tmp_path / "run"]
    run.refused(run("fit", slide, *arguments), "he.png")


def test_an_image_beside_the_cells_is_refused(run, tmp_path):
    slide, image = run.tissue(tmp_path / "a.h5ad"), tmp_path / "he.png"
    Image.new("RGB", (400, 400), "purple").save(image)
    arguments = ["--image", image, "--image-mpp", 1, "--out", tmp_path / "run"]
    place = ["--origin-um", 5000, 5000]
    run.refused(run("fit", slide, *arguments, *place), "image", "cell")


def test_two_slides_of_one_id_are_refused(run, tmp_path):
    (tmp_path / "b").mkdir()
    slides = [run.tissue(tmp_path / "s.h5ad"), run.tissue(tmp_path / "b" / "s.h5ad", seed=1)]
    run.refused(run("fit", *slides, "--out", tmp_path / "run", *run.small), "'s'")
    assert not (tmp_path / "run").exists()


def test_genes_that_a_model_does_not_know_are_refused(run, workplace, tmp_path):
    def rename(adata):
        adata.var_names = [f"other{i}" for i in range(adata.n_vars)]

    slide = change(tmp_path / "genes.h5ad", rename)
    done = run("embed", workplace / "run", slide, "--out", tmp_path / "out.h5ad")
    run.refused(done, "Missing")
    assert not (tmp_path / "out.h5ad").exists()


def test_more_hits_than_cells_are_refused(run, workplace):
    run.refused(run("search", workplace / "embedded.h5ad", "--cell", "cell1", "-k", 500), "299")


def test_a_cell_that_is_not_there_is_refused_with_the_nearest_id(run, workplace):
    done = run("search", workplace / "embedded.h5ad", "--cell", "Cell1")
    run.refused(done, "'Cell1'", "cell1")


def test_a_condition_on_an_unknown_column_is_refused(run, workplace):
    arguments = ["--cell", "cell1", "--where", "ward == 3"]
    run.refused(run("search", workplace / "embedded.h5ad", *arguments), "ward")


def test_a_slide_without_embeddings_is_refused(run, workplace, tmp_path):
    run.refused(run("search", workplace / "slide.h5ad", "--cell", "cell1"), "spatiagraph embed")
    out = tmp_path / "page.html"
    run.refused(run("report", workplace / "slide.h5ad", "--out", out), "spatiagraph embed")
    assert not out.exists()


def test_labels_that_are_not_there_are_refused_before_the_work(run, workplace, tmp_path):
    done = run("report", workplace / "embedded.h5ad", "--labels", "niches", "--out", "x.html")
    run.refused(done, "'niches'", "niche")
    arguments = ["--labels", "layers", "--out", tmp_path / "demo"]
    run.refused(run("demo", workplace / "slide.h5ad", *arguments), "'layers'")
    assert not (tmp_path / "demo").exists()


def test_prepare_writes_no_slide_that_is_refused(run, tmp_path):
    slide, out = change(tmp_path / "bad.h5ad", set_count(-1)), tmp_path / "clean.h5ad"
    run.refused(run("prepare", slide, "--out", out), "cell5")
    run.refused(run("prepare", tmp_path / "nowhere.h5ad", "--out", out), "nowhere")
    good = run.tissue(tmp_path / "good.h5ad")
    run.refused(run("prepare", good, "--out", tmp_path / "clean.csv"), ".h5ad or .zarr")
    assert not out.exists()


def test_an_evaluation_of_nothing_is_refused(run, workplace, tmp_path):
    slide, out = workplace / "embedded.h5ad", tmp_path / "scores.csv"
    run.refused(run("evaluate", slide, "--out", out), "'domains' or 'types'")
    run.refused(run("evaluate", slide, "--domains", "layer", "--out", out), "'layer'")
    done = run("evaluate", slide, "--domains", "niche", "--embedding", "X_contex", "--out", out)
    run.refused(done, "'X_contex'", "X_context")
    assert not out.exists()


def test_a_folder_without_a_model_is_refused(run, workplace, tmp_path):
    done = run("embed", tmp_path, workplace / "slide.h5ad", "--out", tmp_path / "out.h5ad")
    run.refused(done, "config.json")


def test_weights_of_another_model_are_refused(run, workplace, tmp_path):
    slide = workplace / "slide.h5ad"
    arguments = ["--epochs", 1, "--channels", 12, "--accelerator", "cpu"]
    assert run("fit", slide, "--out", tmp_path / "other", *arguments).exit_code == 0
    config = workplace / "run" / "model" / "config.json"
    (tmp_path / "other" / "model" / "config.json").write_text(config.read_text())
    done = run("embed", tmp_path / "other", slide, "--out", tmp_path / "out.h5ad")
    run.refused(done, "weights", "another model")


def test_a_folder_with_another_run_is_refused(run, workplace):
    before = (workplace / "run" / "history.csv").read_text()
    slide = workplace / "slide.h5ad"
    done = run("fit", slide, "--out", workplace / "run", *run.small, "--channels", 12)
    run.refused(done, "another run", "config_hash")
    done = run("fit", slide, "--out", workplace / "run", *run.small, "--seed", 5)
    run.refused(done, "another run", "seed")
    assert (workplace / "run" / "history.csv").read_text() == before


def test_an_output_that_cannot_be_written_is_refused_before_the_work(run, workplace, tmp_path):
    (tmp_path / "file").write_text("")
    inside = tmp_path / "file" / "out.h5ad"
    slide = workplace / "slide.h5ad"
    run.refused(run("embed", workplace / "run", slide, "--out", inside), "file")
    run.refused(run("fit", slide, "--out", tmp_path / "file", *run.small), "file")
    run.refused(run("embed", workplace / "run", slide, "--out", tmp_path / "out.csv"), ".h5ad")


def test_a_full_disk_leaves_the_old_file(run, workplace, tmp_path):
    out = tmp_path / "out.h5ad"
    out.write_bytes((workplace / "embedded.h5ad").read_bytes())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        done = run("embed", workplace / "run", workplace / "slide.h5ad", "--out", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    run.refused(done)
    assert anndata.read_h5ad(out).n_obs == 300
    assert [p.name for p in tmp_path.iterdir()] == ["out.h5ad"]


def test_a_run_stopped_by_ctrl_c_ends_with_the_weights_of_one_that_was_not(
    run, tmp_path, one_thread
):
    """The one that is stopped is a process; the whole one and the resumed one need none."""
    slide = run.tissue(tmp_path / "a.h5ad")
    arguments = ["fit", str(slide), "--epochs", "20", "--channels", "8", "--accelerator", "cpu"]
    stopped = subprocess.Popen(
        [*COMMAND, *arguments, "--out", str(tmp_path / "stopped")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    history = tmp_path / "stopped" / "history.csv"
    deadline = time.monotonic() + 600
    while not (history.is_file() and len(history.read_text().splitlines()) > 3):
        assert stopped.poll() is None, stopped.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stopped.send_signal(signal.SIGINT)
    said, error = stopped.communicate(timeout=600)
    assert stopped.returncode == 130, error
    assert "the same command goes on" in said
    assert "Traceback" not in error
    assert not (tmp_path / "stopped" / "model").exists()
    for name in ("stopped", "whole"):
        done = run(*arguments, "--out", tmp_path / name)
        assert done.exit_code == 0, done.output
    first, second = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "stopped")
    )
    for name, value in first.items():
        assert_close(second[name], value, rtol=0, atol=0)
    records = [
        json.loads((tmp_path / name / "run.json").read_text()) for name in ("whole", "stopped")
    ]
    assert records[0] == records[1]
