"""Protocols of ``spatiagraph evaluate`` that are run when they are asked for."""

import shutil

import anndata
import numpy as np
import pandas as pd
from PIL import Image

from spatiagraph.data import make_tissue
from spatiagraph.models import ContextModel


def test_evaluate_imputes_genes_and_reads_images_when_asked(run, workplace, tmp_path):
    adata = make_tissue(100, num_genes=40).adata
    adata.write_h5ad(tmp_path / "slide.h5ad")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (400, 400, 3), np.uint8)).save(
        tmp_path / "image.png"
    )
    low = adata.obsm["spatial"].min(0)
    mpp = np.ptp(adata.obsm["spatial"], axis=0).max() / 390
    arguments = ["--image", tmp_path / "image.png", "--image-mpp", mpp, "--origin-um", *low]
    out = tmp_path / "scores.csv"
    wide = ["--protocol", "imputation", "--margin-um", 1000]
    done = run("evaluate", tmp_path / "slide.h5ad", *wide, "--out", out)
    run.refused(done, "training cells more than 1000 µm", "none of 100")
    arguments += ["--margin-um", 10]  # more leaves few of them
    for protocol in ("imputation", "image_to_genes"):
        arguments += ["--protocol", protocol]
    done = run("evaluate", tmp_path / "slide.h5ad", *arguments, "--out", out)
    assert done.exit_code == 0, done.output
    scores = pd.read_csv(out).set_index(["protocol", "embedding", "metric"])["value"]
    assert scores["imputation", "ridge", "pearson_mean"] > 0
    assert scores["image_to_genes", "depth_oracle", "pearson_given_depth"] == 0
    assert ("image_to_genes", "color_texture", "mse") in scores
    done = run("evaluate", tmp_path / "slide.h5ad", "--protocol", "retrieval", "--out", out)
    run.refused(done, "'image_features' or 'crops'")


def test_embeddings_of_other_methods_are_entered_by_their_slot(run, workplace, tmp_path):
    adata = anndata.read_h5ad(workplace / "embedded.h5ad")
    truth = adata.obs["niche"].astype("category").cat.codes.to_numpy()
    adata.obsm["peer"] = np.eye(truth.max() + 1)[truth]
    adata.obsm["X_noise"] = np.random.default_rng(0).normal(size=(adata.n_obs, 8))
    adata.write_h5ad(tmp_path / "slide.h5ad")
    out = tmp_path / "scores.csv"
    arguments = ["--domains", "niche", "--protocol", "domains_kmeans", "--seeds", 3, "--out", out]
    chosen = ["--embedding", "peer", "--embedding", "X_noise"]
    done = run("evaluate", tmp_path / "slide.h5ad", *arguments, *chosen)
    assert done.exit_code == 0, done.output
    table = pd.read_csv(out)
    score = table[table["metric"] == "ARI"].set_index("embedding")["value"]
    assert set(score.index) == {"peer", "X_noise", "pca30", "pca30_nbr15", "depth_nbr15", "xy_only"}
    assert score["peer"] == 1
    assert score["X_noise"] < 0.1 < score["pca30_nbr15"]
    assert (table[["seconds", "peak_gb"]] > 0).all(axis=None)
    assert "peak_gb" in done.stdout
    assert {"ARI_std", "ARI_noise"} <= set(done.stdout.split())


def test_labels_that_are_numbers_can_mean_unlabelled(run, workplace, tmp_path):
    adata = anndata.read_h5ad(workplace / "embedded.h5ad")
    adata.obs["domain"] = adata.obs["niche"].astype("category").cat.codes.to_numpy()
    adata.obsm["peer"] = np.eye(adata.obs["domain"].max() + 1)[adata.obs["domain"]]
    adata.obs.loc[adata.obs_names[::2], "domain"] = 99  # nobody looked at these
    adata.write_h5ad(tmp_path / "slide.h5ad")
    out = tmp_path / "scores.csv"
    arguments = ["--domains", "domain", "--unlabelled", 99, "--protocol", "domains_kmeans"]
    done = run("evaluate", tmp_path / "slide.h5ad", *arguments, "--embedding", "peer", "--out", out)
    assert done.exit_code == 0, done.output
    table = pd.read_csv(out).set_index(["embedding", "metric"])["value"]
    assert table["peer", "ARI"] == 1


def test_transfer_leaves_out_each_donor(run, tmp_path, monkeypatch):
    monkeypatch.setattr(ContextModel, "num_steps", 5)  # what it learns is not looked at
    paths = [run.tissue(tmp_path / f"{name}.h5ad", seed=n) for n, name in enumerate("abc")]
    for path, donor in zip(paths, ("ann", "bob", "bob"), strict=True):
        adata = anndata.read_h5ad(path)
        adata.obs["patient"] = donor
        adata.write_h5ad(path)
    out = tmp_path / "scores.csv"
    named = [word for name in "abc" for word in ("--slide-id", name)]
    arguments = ["--protocol", "transfer", "--domains", "niche", "--donor-key", "patient", *named]
    done = run("evaluate", *paths, *arguments, "--seeds", 1, "--out", out)
    assert done.exit_code == 0, done.output
    scores = pd.read_csv(out)
    table = scores[scores["protocol"] == "labels"].set_index(["embedding", "donor"])
    assert set(table.index.get_level_values("donor")) == {"ann", "bob"}
    assert {
        "context_cell", "context_niche", "context_niche, before training", "pca30_nbr15", "chance"
    } <= set(table.index.get_level_values("embedding"))  # fmt: skip
    assert table.loc[("context_niche", "bob"), "num_cells"] == 600
    assert table.loc["context_niche", "precision"].between(0, 1).all()
    genes = scores[scores["protocol"] == "imputation"].set_index(["embedding", "donor"])
    assert genes.loc[("ridge", "ann"), "num_genes"] == 8  # of 40
    assert genes.loc["context_decoder", "pearson_mean"].between(-1, 1).all()
    assert {*scores["protocol"]} == {"labels", "imputation"}
    for word in ("context_niche", "context_decoder, before training", "imputation", "rmse"):
        assert word in done.stdout


def test_transfer_without_labels_hides_genes_and_reads_images(run, tmp_path):
    out, words = tmp_path / "scores.csv", []
    rng = np.random.default_rng(0)
    for n, name in enumerate("ab"):
        adata = make_tissue(100, num_genes=40, seed=n).adata
        adata.obsm["spatial"] -= adata.obsm["spatial"].min(0)
        adata.obs["patient"] = name
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
        picture = Image.fromarray(rng.integers(0, 255, (300, 300, 3), np.uint8))
        picture.save(tmp_path / f"{name}.png")
        words += ["--image", tmp_path / f"{name}.png", "--slide-id", name]
    paths = [tmp_path / f"{name}.h5ad" for name in "ab"]
    named = [*words, "--image-mpp", 1.0, "--origin-um", -50, -50, "--donor-key", "patient"]
    transfer = ["--protocol", "transfer", "--model", "none", "--out", out]
    done = run("evaluate", *paths, *transfer, *named)
    assert done.exit_code == 0, done.output
    scores = pd.read_csv(out).set_index(["protocol", "embedding", "donor"]).sort_index()
    assert {*scores.index.get_level_values(0)} == {"imputation", "image_to_genes"}
    assert scores.loc[("image_to_genes", "color_texture"), "pearson_mean"].notna().all()
    assert "color_texture" in done.stdout


def test_transfer_without_donors_or_with_other_protocols_is_refused(run, workplace, tmp_path):
    path = run.tissue(tmp_path / "slide.h5ad")
    transfer = ["--protocol", "transfer", "--domains", "niche"]
    run.refused(run("evaluate", path, *transfer), "donor of slide", "--donor-key")
    run.refused(run("evaluate", path, *transfer, "--donor-key", "patient"), "'patient'")
    mixed = run("evaluate", path, *transfer, "--protocol", "imputation")
    run.refused(mixed, "transfer alone")
    run.refused(run("evaluate", path, *transfer, "--types", "cell_type"), "got both")
    run.refused(run("evaluate", path, path, "--domains", "niche"), "one slide, got 2")


def test_the_model_before_training_stands_beside_the_trained_one(run, workplace, tmp_path):
    """In every protocol, with the figures that its own embeddings have."""
    both, out = tmp_path / "both.h5ad", tmp_path / "scores.csv"
    line = ("embed", workplace / "run", workplace / "embedded.h5ad", "--before-training")
    assert run(*line, "--out", both).exit_code == 0
    asked = ["--domains", "niche", "--types", "cell_type", "--seeds", 2, "--out", out]
    done = run("evaluate", both, *asked, "--run", workplace / "run")
    assert done.exit_code == 0, done.output
    assert "X_context_niche, before training" in done.stdout
    table = pd.read_csv(out).set_index(["protocol", "metric", "embedding"])["value"]
    for (protocol, metric), scores in table.groupby(["protocol", "metric"]):
        scores = scores.droplevel(["protocol", "metric"])
        for level in ("", "_niche", "_tissue"):
            name = f"X_context{level}, before training"
            expected = scores[f"X_start_context{level}"]
            np.testing.assert_allclose(scores[name], expected, atol=1e-6, err_msg=protocol + metric)
        assert "X_start_context, before training" not in scores
        assert "pca30_nbr15, before training" not in scores
    domains = table["domains_kmeans"]["ARI"]
    order = [name for name in domains.index if name.startswith("X_context")]
    assert order[:2] == ["X_context", "X_context, before training"]
    found = anndata.read_h5ad(both).obsm
    assert np.abs(found["X_start_context"] - found["X_context"]).max() > 0


def test_a_run_that_does_not_apply_is_refused(run, workplace, tmp_path):
    embedded, asked = workplace / "embedded.h5ad", ["--domains", "niche", "--run"]
    old = shutil.copytree(workplace / "run", tmp_path / "old")
    shutil.rmtree(old / "start")
    run.refused(run("evaluate", embedded, *asked, old), "kept its model before training")
    kept = workplace / "run"
    transfer = ["--protocol", "transfer", "--donor-key", "patient"]
    run.refused(run("evaluate", embedded, *asked, kept, *transfer), "no --run with --protocol")
    slide = run.tissue(tmp_path / "other.h5ad")
    run.refused(run("evaluate", slide, *asked, kept), "obsm['X_context']", "got none")
    done = run("evaluate", embedded, *asked, kept, "--embedding", "spatial")
    run.refused(done, "obsm['X_context']", "got spatial")
    other = tmp_path / "other"
    assert run("fit", slide, "--out", other, *run.small, "--seed", 1).exit_code == 0
    run.refused(run("evaluate", embedded, *asked, other), "embed it again with that run")
    cohort = tmp_path / "c.zarr"
    assert run("prepare", slide, "--cohort", cohort, "--genes", 20).exit_code == 0
    run.refused(run("evaluate", cohort, *asked, kept), "one slide with --run", "got a cohort")
