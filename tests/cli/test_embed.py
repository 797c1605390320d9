"""``spatiagraph embed --before-training``: the start of a run as a model of its own."""

import shutil

import anndata
import numpy as np
import pandas as pd
import pytest

import spatiagraph as sg
from spatiagraph.training import load_start


@pytest.fixture(scope="module")
def both(run, workplace, tmp_path_factory):
    """The embedded slide, embedded once more with the start."""
    out = tmp_path_factory.mktemp("both") / "both.h5ad"
    line = ("embed", workplace / "run", workplace / "embedded.h5ad", "--before-training")
    done = run(*line, "--out", out)
    assert done.exit_code == 0, done.output
    return out


def test_both_embeddings_stand_in_one_file(workplace, both):
    trained, adata = anndata.read_h5ad(workplace / "embedded.h5ad"), anndata.read_h5ad(both)
    start = load_start(workplace / "run")
    expected = sg.embed(start, sg.read(workplace / "slide.h5ad"), progress=False).obsm
    for level in ("", "_niche", "_tissue"):
        np.testing.assert_array_equal(
            adata.obsm[f"X_context{level}"], trained.obsm[f"X_context{level}"]
        )
        np.testing.assert_allclose(
            adata.obsm[f"X_start_context{level}"], expected[f"X_context{level}"], atol=1e-5
        )
    assert np.abs(adata.obsm["X_start_context"] - adata.obsm["X_context"]).max() > 1e-3


def test_it_is_searched_and_divided_into_domains_and_asked_by_a_slide(
    run, workplace, both, tmp_path
):
    hits = tmp_path / "hits.csv"
    done = run("search", both, "--cell", "cell7", "--apart-um", 0, "-k", 3, "--out", hits)
    assert done.exit_code == 0, done.output
    z = anndata.read_h5ad(both).obsm["X_start_context_niche"]
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    nearest = np.argsort(-(z @ z[7]))[1:4]
    assert pd.read_csv(hits)["id"].tolist() == [f"cell{n}" for n in nearest]
    asked = ("search", both, "--query", workplace / "slide.h5ad", "--cell", "cell7", "--model")
    done = run(*asked, workplace / "run" / "start")
    assert done.exit_code == 0, done.output
    run.refused(run(*asked, workplace / "run"), "the model of the slides")  # weights differ
    line = ("domains", both, "--k", 3, "--method", "kmeans", "--out", tmp_path / "d.h5ad")
    assert run(*line).exit_code == 0


def test_a_model_without_start_is_refused(run, workplace, tmp_path):
    old = shutil.copytree(workplace / "run", tmp_path / "old")
    shutil.rmtree(old / "start")
    out = tmp_path / "a.h5ad"
    for model in (old, old / "model", "context-mouse-brain"):
        done = run("embed", model, workplace / "slide.h5ad", "--before-training", "--out", out)
        run.refused(done, "kept its model before training")
    assert not out.exists()


def test_a_cohort_keeps_the_start_beside_the_trained_model(run, workplace, tmp_path):
    place = tmp_path / "c.zarr"
    made = ("prepare", workplace / "slide.h5ad", "--cohort", place, "--model", workplace / "run")
    assert run(*made).exit_code == 0
    for option in ((), ("--before-training",)):
        done = run("embed", workplace / "run", place, *option)
        assert done.exit_code == 0, done.output
    slide = sg.data.Cohort(place)["slide"]
    expected = sg.embed(load_start(workplace / "run"), slide, name="again", progress=False).obsm
    for level in ("", "_niche"):
        np.testing.assert_allclose(
            expected[f"X_start_context{level}"], expected[f"X_again{level}"], atol=1e-5
        )
    moved = expected["X_start_context"] - expected["X_context"]  # niches stay where they start
    assert np.abs(moved).max() > 0
