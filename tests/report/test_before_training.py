"""The report says what training did to the score, by runs whose answer is known."""

import shutil

import pandas as pd
import pytest
import torch

import spatiagraph as sg
from spatiagraph.data import Slide, make_tissue
from spatiagraph.inference import embed_before_training
from spatiagraph.keys import start_name
from spatiagraph.models import ContextModel
from spatiagraph.report.scores import training_verdict, verdict
from spatiagraph.training import fit, load_start

pytestmark = pytest.mark.usefixtures("without_umap", "few_members")

BEFORE = "context, niche, before training"
RUN = {"max_steps": 1, "lr": 1e-9, "accelerator": "cpu", "progress": False, "logger": False}


def tissue():
    return make_tissue(400, num_genes=40, image=None, seed=0)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A run whose one step changed nothing to speak of; copy it, do not change it."""
    out = tmp_path_factory.mktemp("good") / "run"
    slide = tissue()
    fit(ContextModel.for_slides([slide], channels=8), slide, **RUN, out=out)
    return out


def destroy(folder):
    """Leave of a saved model the last components that it reads, which are noise."""
    model = ContextModel.from_pretrained(folder)
    with torch.no_grad():
        model.cell_encoder.genes.linear.weight[:-3] = 0
    model.save_pretrained(folder)


def reported(run, page, slide=None, labels="niche"):
    """The report of tissue that the trained model of a run embeds."""
    slide = tissue() if slide is None else slide
    sg.embed(ContextModel.from_pretrained(run / "model"), slide, progress=False)
    return sg.report_slide(slide, page, labels=labels, num_domains=4, run=run)


def test_training_that_destroyed_a_model_is_said_by_how_much_and_what_to_do(good, tmp_path):
    run = shutil.copytree(good, tmp_path / "run")
    destroy(run / "model")
    done = reported(run, tmp_path / "page.html")
    ari = done.scores["ARI"]
    assert ari[BEFORE] > ari["context, niche"] + 0.2
    lost, text = ari[BEFORE] - ari["context, niche"], done.path.read_text(encoding="utf-8")
    said = f"Training lowered the agreement of niche embeddings by {lost:.2f}, from "
    assert training_verdict(done.scores).startswith(said)
    assert said in text
    assert "embed with --before-training" in text
    assert "k-means of niche embeddings before training" in text  # among bars and rows
    alone = tissue()
    sg.embed(load_start(run), alone, progress=False)
    expected = sg.report_slide(alone, tmp_path / "a.html", labels="niche")
    assert ari[BEFORE] == pytest.approx(expected.scores.loc["context, niche", "ARI"], abs=1e-3)
    assert "before training" not in expected.path.read_text(encoding="utf-8")
    sg.embed(load_start(run), alone, name=start_name("context"), progress=False)
    named = sg.report_slide(alone, tmp_path / "a.html", labels="niche")
    assert ari[BEFORE] == pytest.approx(named.scores.loc["start_context, niche", "ARI"], abs=1e-3)
    assert "k-means of niche embeddings before training" in named.path.read_text(encoding="utf-8")


def test_training_that_changed_nothing_or_raised_the_score_is_said_as_such(good, tmp_path):
    done = reported(good, tmp_path / "page.html")
    assert done.scores.loc[BEFORE, "ARI"] == pytest.approx(
        done.scores.loc["context, niche", "ARI"], abs=5e-3
    )
    text = done.path.read_text(encoding="utf-8")
    assert "Training changed nothing in the agreement of niche embeddings" in text
    assert "--before-training" not in text
    run = shutil.copytree(good, tmp_path / "run")
    destroy(run / "start")
    done = reported(run, tmp_path / "page.html")
    text = done.path.read_text(encoding="utf-8")
    assert "Training raised the agreement of niche embeddings by" in text
    assert "--before-training" not in text


def test_a_run_without_start_and_a_slide_without_labels_are_reported_as_ever(good, tmp_path):
    old = shutil.copytree(good, tmp_path / "old")
    shutil.rmtree(old / "start")
    done = reported(old, tmp_path / "old.html")
    assert BEFORE not in done.scores.index
    assert training_verdict(done.scores) == ""
    plain = reported(good, tmp_path / "plain.html", labels=None)
    assert plain.scores is None
    for page in (done, plain):
        text = page.path.read_text(encoding="utf-8")
        assert "before training" not in text
        assert "Training lowered" not in text


def test_a_comparison_that_would_not_be_of_training_alone_is_left_out_and_said(good, tmp_path):
    """Of another run, of a damaged start, of a slide that has changed, or of the start itself."""
    other = shutil.copytree(good, tmp_path / "other")
    destroy(other / "model")
    slide = tissue()
    sg.embed(ContextModel.from_pretrained(other / "model"), slide, progress=False)
    damaged = shutil.copytree(good, tmp_path / "damaged")
    (damaged / "start" / "model.safetensors").write_bytes(b"x")
    changed = tissue()
    sg.embed(ContextModel.from_pretrained(good / "model"), changed, progress=False)
    changed.adata.obsm["spatial"] = changed.adata.obsm["spatial"] + 1.0
    start = tissue()
    sg.embed(load_start(good), start, name="start_context", progress=False)
    cases = {
        "embed it again with that run": (slide, good),
        "Is the file complete?": (slide, damaged),
        "as it was embedded, got other counts, places or image": (Slide(changed.adata), good),
        "got X_start_context_niche: embed the slide with that run": (start, good),
    }
    for words, (given, run) in cases.items():
        done = sg.report_slide(given, tmp_path / "page.html", labels="niche", run=run)
        assert not any(name.endswith("before training") for name in done.scores.index)
        text = done.path.read_text(encoding="utf-8")
        assert "Not compared with the model before training" in text
        assert words in text


def test_a_difference_within_the_spread_of_the_clustering_is_none(good):
    slide = tissue()
    sg.embed(ContextModel.from_pretrained(good / "model"), slide, progress=False)
    table = sg.inference.find_domains(
        slide,
        sg.inference.known_labels(slide, "niche", None),
        beside={BEFORE: embed_before_training(slide, good, ["X_context_niche"])["X_context_niche"]},
    ).scores
    rows = ["context, niche", BEFORE]
    for std, words in ((0.05, "changed nothing"), (0.01, "lowered")):
        table.loc[rows, "ARI"], table.loc[rows, "ARI_std"] = [0.40, 0.46], std
        assert words in training_verdict(table)
        assert verdict(table, "spatiagraph").endswith(training_verdict(table))
    table.loc[rows, "ARI"] = [0.46, 0.40]
    assert "raised" in training_verdict(table)
    table.loc[BEFORE, "ARI"] = 0.99
    assert "K-means of niche embeddings before training is better here by" in verdict(
        table, "spatiagraph"
    )


def test_a_difference_that_noise_would_make_is_none(good, tmp_path):
    rows = ["context, niche", BEFORE]
    scores = pd.DataFrame({"ARI": [0.82, 0.83], "ARI_std": 0.0, "ARI_noise": 0.01}, index=rows)
    assert "changed nothing" in training_verdict(scores)
    assert "lowered" in training_verdict(scores.assign(ARI_noise=0.001))
    table = reported(good, tmp_path / "page.html").scores
    assert table["ARI_noise"].notna().tolist() == [name in rows for name in table.index]
    assert "± by noise (ARI)</th>" in (tmp_path / "page.html").read_text(encoding="utf-8")
