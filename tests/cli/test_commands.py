"""Each command at its best; what they refuse is in the test of bad input."""

import os
import re
import subprocess
import sys
from importlib.metadata import metadata

import anndata
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import spatiagraph
from spatiagraph.data import make_tissue, write
from spatiagraph.inference.preview import preview_transitions

pytestmark = pytest.mark.usefixtures("without_umap", "few_members")  # UMAPs: the tests of reports


def test_version_is_the_package_s(run):
    assert run("--version").stdout.strip() == f"spatiagraph {spatiagraph.__version__}"


def test_fit_leaves_a_model_losses_and_a_record(run, tmp_path):
    slide = run.tissue(tmp_path / "a.h5ad")
    done = run("fit", slide, "--out", tmp_path / "run", *run.small)
    assert done.exit_code == 0, done.output
    assert "(2 epochs)" in done.stdout
    assert len(pd.read_csv(tmp_path / "run" / "history.csv")) == 2
    for file in ("run.json", "model/config.json", "model/model.safetensors"):
        assert (tmp_path / "run" / file).is_file()


def test_fit_stops_early_on_tissue_that_it_does_not_train_on(run, tmp_path):
    slide = run.tissue(tmp_path / "a.h5ad")
    command = ["fit", slide, "--out", tmp_path / "run", *run.small, "--patience", 1]
    run.refused(run(*command), "'validation' with --patience 1")
    done = run(*command, "--validation", 0.3, "--lr", 1e-9, "--epochs", 20)  # nothing is learned
    assert done.exit_code == 0, done.output
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert len(history) < 20
    assert history["val_loss"].notna().all()


def test_fit_on_several_slides_reads_an_image_for_each(run, tmp_path):
    slides = [run.tissue(tmp_path / f"{n}.h5ad", seed=n) for n in range(2)]
    arguments = [*slides, "--out", tmp_path / "run", *run.small]
    done = run("fit", *arguments, "--image", tmp_path / "one.png")
    run.refused(done, "--image for each of 2 slides", "got 1")
    assert run("fit", *arguments).exit_code == 0


def test_embed_writes_where_the_ecosystem_looks(workplace):
    adata = anndata.read_h5ad(workplace / "embedded.h5ad")
    for level in ("X_context", "X_context_niche", "X_context_tissue"):
        assert adata.obsm[level].shape == (300, 8)
        assert np.isfinite(adata.obsm[level]).all()
    assert adata.obsp["spatial_connectivities"].shape == (300, 300)
    assert adata.uns["spatiagraph"]["embed"]["version"] == spatiagraph.__version__
    assert "niche" in adata.obs  # the user's own column is untouched


def test_tile_size_changes_no_embedding(run, workplace, tmp_path):
    slide, out = workplace / "slide.h5ad", tmp_path / "tiled.h5ad"
    assert run("embed", workplace / "run", slide, "--out", out, "--tile-size", 64).exit_code == 0
    whole, tiled = (anndata.read_h5ad(p) for p in (workplace / "embedded.h5ad", out))
    for level in ("X_context", "X_context_niche", "X_context_tissue"):
        assert_allclose(tiled.obsm[level], whole.obsm[level], atol=1e-5)


def test_search_finds_the_niches_most_like_a_cell_s(run, workplace, tmp_path):
    out = tmp_path / "hits.csv"
    arguments = ["--cell", "cell7", "-k", 4, "--apart-um", 0, "--out", out]
    done = run("search", workplace / "embedded.h5ad", *arguments)
    assert done.exit_code == 0, done.output
    hits = pd.read_csv(out)
    assert hits["rank"].tolist() == [1, 2, 3, 4]
    assert "cell7" not in set(hits["id"])
    z = anndata.read_h5ad(workplace / "embedded.h5ad").obsm["X_context_niche"]
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    expected = np.sort(1 - np.delete(z @ z[7], 7))[:4]
    assert_allclose(hits["distance"], expected, atol=1e-5)


def test_search_across_slides_keeps_to_a_condition_and_keeps_its_index(run, workplace, tmp_path):
    other = run.tissue(tmp_path / "other.h5ad", seed=1)
    run("embed", workplace / "run", other, "--out", tmp_path / "b.h5ad")
    both = [workplace / "embedded.h5ad", tmp_path / "b.h5ad"]
    run.refused(run("search", *both, "--cell", "cell7"), "slide, other", "--slide")
    arguments = ["--cell", "cell7", "--slide", "slide", "--where", "slide_id == 'other'"]
    out, index = tmp_path / "hits.csv", tmp_path / "index"
    done = run("search", *both, *arguments, "--out", out, "--save-index", index)
    assert done.exit_code == 0, done.output
    assert set(pd.read_csv(out)["slide_id"]) == {"other"}
    assert spatiagraph.NicheIndex.load(index).num_items == 600


def test_report_is_one_page_with_scores_and_curve(run, workplace, tmp_path):
    page = tmp_path / "page.html"
    arguments = ["--run", workplace / "run", "--labels", "niche", "--out", page]
    done = run("report", workplace / "embedded.h5ad", *arguments)
    assert done.exit_code == 0, done.output
    assert "pca30_nbr15" in done.stdout
    assert "context, niche, before training" in done.stdout
    html = page.read_text()
    (told,) = (line for line in done.stdout.splitlines() if line.startswith("Training "))
    assert told in html
    for part in ("What was run", "Scores", "Training", "Domains on the slide", "Gene panel"):
        assert part in html
    assert "default-src 'none'" in html
    assert 'src="http' not in re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)


@pytest.fixture
def short_preview(monkeypatch):
    """A generator of one pass over few pairs: what it learns is the matter of other tests."""
    monkeypatch.setattr("spatiagraph.inference.preview.NUM_EPOCHS", 1)
    monkeypatch.setattr("spatiagraph.inference.preview.MAX_PAIRS", 64)


@pytest.mark.usefixtures("short_preview")
def test_demo_goes_all_the_way_and_prints_scores_beside_baselines(run, tmp_path):
    out = tmp_path / "demo"
    done = run("demo", "--cells", 1000, "--epochs", 2, "--out", out)
    assert done.exit_code == 0, done.output
    for name in ("spatiagraph", "pca30", "pca30_nbr15", "random_target"):
        assert name in done.stdout
    for said in ("context, niche, before training", "\nTraining "):
        assert said in done.stdout
    for file in ("report.html", "embeddings.h5ad", "index/index.faiss", "run/model/config.json"):
        assert (out / file).is_file()
    adata = anndata.read_h5ad(out / "embeddings.h5ad")
    assert {"context_domain", "context_domain_confidence"} <= set(adata.obs)
    for number, phase in enumerate(("train a small", "embed", "find domains", "generate"), start=1):
        assert f"[{number}/4] {phase}" in done.stdout
    assert "report: 100%" in done.stderr
    # the report was there before the last phase began, and has its images afterwards
    assert done.stdout.index("report.html") < done.stdout.index("[4/4] generate")
    assert (out / "generator" / "model" / "model.safetensors").is_file()
    assert "Generation: larger nuclei" in (out / "report.html").read_text()


@pytest.mark.usefixtures("short_preview")
def test_demo_on_a_slide_with_an_image_takes_clusters_of_cells_as_states(run, tmp_path):
    pytest.importorskip("spatialdata")
    write(make_tissue(1000, num_genes=40, image="dapi", seed=0), tmp_path / "slide.zarr")
    out = tmp_path / "demo"
    done = run("demo", tmp_path / "slide.zarr", "--epochs", 1, "--out", out)
    assert done.exit_code == 0, done.output
    assert "random_target" in done.stdout
    assert "obs['context_state']" in done.stdout
    sizes = anndata.read_h5ad(out / "embeddings.h5ad").obs["context_state"].value_counts()
    assert sizes.index.tolist() == ["state1", "state2", "state3", "state4"]


def test_demo_without_labels_and_image_prints_no_score_and_why_there_are_no_other_states(
    run, tmp_path
):
    slide = run.tissue(tmp_path / "a.h5ad")
    done = run("demo", slide, "--epochs", 1, "--out", tmp_path / "demo")
    assert done.exit_code == 0, done.output
    assert "there is no image" in done.stdout
    assert "ARI" not in done.stdout
    assert (tmp_path / "demo" / "report.html").is_file()


def test_states_of_few_cells_are_not_learned():
    slide = make_tissue(300, num_genes=40, seed=0, image="dapi")
    with pytest.raises(ValueError, match="they need 1,000 cells, this is 300"):
        preview_transitions(slide)


def test_demo_ends_with_the_report_when_nothing_is_to_be_generated(run, tmp_path):
    slide = run.tissue(tmp_path / "a.h5ad")
    done = run("demo", slide, "--epochs", 1, "--no-generate", "--out", tmp_path / "demo")
    assert done.exit_code == 0, done.output
    assert "[3/3]" in done.stdout
    assert "enerat" not in done.stdout
    assert (tmp_path / "demo" / "report.html").is_file()
    refused = run("demo", slide, "--no-generate", "--states", "niche", "--transition", "a:b")
    run.refused(refused, "--transition or --no-generate")


def test_threads_of_commands_sleep_while_they_wait():
    code = (
        "import os; from spatiagraph.cli import app; "
        "app(['doctor', '--help'], standalone_mode=False); print(os.environ['OMP_WAIT_POLICY'])"
    )
    kept = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    for given in ("PASSIVE", "ACTIVE"):  # that of the user comes first
        environment = kept if given == "PASSIVE" else {**kept, "OMP_WAIT_POLICY": given}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
        assert done.stdout.decode().splitlines()[-1] == given, done.stderr


def test_doctor_tests_the_kernels_and_says_how_to_get_what_is_missing(run):
    done = run("doctor")
    assert done.exit_code == 0, done.output
    assert "numba             ok" in done.stdout
    assert f"spatiagraph {spatiagraph.__version__}" in done.stdout
    extras = done.stdout.split("extras\n")[1].splitlines()
    assert {line.split()[0] for line in extras} == set(
        metadata("spatiagraph").get_all("Provides-Extra")
    )
    for line in extras:
        assert line.split()[1] == "ok" or "pip install" in line
    assert "memory for" not in done.stdout


def test_doctor_says_what_each_extra_is_for(run):
    extras = run("doctor").stdout.split("extras\n")[1].splitlines()
    assert len(extras) > 5
    assert all(line.endswith(")") for line in extras)


def test_doctor_estimates_memory_that_grows_with_cells_and_genes(run):
    def gigabytes(*arguments):
        lines = run("doctor", *arguments).stdout.split("memory for")[1].splitlines()
        return [float(re.search(r"about ([\d.]+) GB", line)[1]) for line in lines if "GB" in line]

    small, many_cells, many_genes = (
        gigabytes("--cells", cells, "--genes", genes)
        for cells, genes in ((10_000, 500), (1_000_000, 500), (1_000_000, 1000))
    )
    for a, b, c in zip(small, many_cells, many_genes, strict=True):
        assert 0.5 < a < b < c < 100


def test_evaluate_scores_every_embedding_beside_the_baselines(run, workplace, tmp_path):
    out = tmp_path / "scores.csv"
    arguments = ["--domains", "niche", "--types", "cell_type", "--seeds", 2, "--out", out]
    done = run("evaluate", workplace / "embedded.h5ad", *arguments)
    assert done.exit_code == 0, done.output
    scores = pd.read_csv(out)
    assert set(scores["protocol"]) == {"domains_kmeans", "domains_gmm", "annotation_blocks"}
    names = set(scores["embedding"])
    assert {"X_context", "X_context_niche", "pca30", "pca30_nbr15", "xy_only", "majority"} <= names
    assert out.with_suffix(".png").stat().st_size > 10_000


def test_prepare_says_what_is_there_and_writes_what_opens_without_options(run, tmp_path):
    adata = make_tissue(300, num_genes=40).adata
    adata.obsm["spatial"] = adata.obsm["spatial"] / 0.5
    adata.write_h5ad(tmp_path / "pixels.h5ad")
    out = tmp_path / "clean.h5ad"
    done = run("prepare", tmp_path / "pixels.h5ad", "--mpp", 0.5, "--out", out)
    assert done.exit_code == 0, done.output
    for words in ("300 cells", "40, ", "0.5 µm per unit", "counts, median", "image       none"):
        assert words in done.stdout
    again = run("prepare", out)
    assert again.exit_code == 0
    assert "slide       pixels" in again.stdout


@pytest.mark.parametrize("model", ["stalign", "stofm", "spatialformer"])
def test_a_size_that_a_model_does_not_have_is_refused_before_slides_are_read(
    run, workplace, tmp_path, model
):
    slide, out = workplace / "slide.h5ad", tmp_path / "run"
    done = run("fit", slide, "--out", out, "--model", model, "--preset", "small")
    run.refused(done, f"Expected --preset tiny or base of --model {model}, got small")
    assert "Slide(" not in done.output  # each is shown once it is read
    assert not out.exists()
