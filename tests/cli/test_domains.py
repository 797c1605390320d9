"""``spatiagraph domains``: written for one slide or several, and never without a number."""

import anndata
import pandas as pd


def test_domains_are_written_with_their_confidence(run, workplace, tmp_path):
    out, curve = tmp_path / "out.h5ad", tmp_path / "curve.png"
    arguments = ["--k", 3, "--method", "kmeans", "--key", "part", "--out", out]
    more = ["--curve", curve, "--max-k", 4, "--groups", tmp_path / "groups.csv"]
    done = run("domains", workplace / "embedded.h5ad", *arguments, *more)
    assert done.exit_code == 0, done.output
    adata = anndata.read_h5ad(out)
    assert list(adata.obs["part"].cat.categories) == ["1", "2", "3"]
    groups = pd.read_csv(tmp_path / "groups.csv", dtype=str, index_col="cell_id")["group"]
    assert (groups[adata.obs_names] == adata.obs["part"]).all()
    assert adata.obs["part_confidence"].between(0, 1).all()
    assert adata.uns["spatiagraph"]["domains"]["part"]["num_domains"] == 3
    assert "X_context_niche" in adata.obsm
    assert "stability" in done.stdout
    assert curve.stat().st_size > 1000


def test_without_a_number_there_is_a_curve_and_nothing_else(run, workplace, tmp_path):
    done = run("domains", workplace / "embedded.h5ad", "--method", "gmm", "--max-k", 4)
    assert done.exit_code == 0, done.output
    assert "Choose a number with --k" in done.stdout
    assert all(f"\n{k} " in done.stdout for k in (2, 3, 4))
    assert not list(tmp_path.iterdir())


def test_several_slides_are_clustered_as_one(run, workplace, tmp_path):
    first, second = (run.tissue(tmp_path / f"{name}.h5ad", seed=1) for name in "ab")
    arguments = ["--k", 3, "--method", "gmm", "--embedding", "averaged_pca"]
    named = ["--slide-id", "a", "--slide-id", "b", "--out", tmp_path / "out"]
    done = run("domains", first, second, *arguments, *named)
    assert done.exit_code == 0, done.output
    one, other = (anndata.read_h5ad(tmp_path / "out" / f"{name}.h5ad") for name in "ab")
    assert (one.obs["domain"].astype(str) == other.obs["domain"].astype(str)).mean() > 0.95


def test_groups_of_several_slides_or_without_a_number_are_refused(run, workplace, tmp_path):
    slide = workplace / "embedded.h5ad"
    run.refused(run("domains", slide, "--groups", tmp_path / "g.csv"), "--k")
    arguments = ["--k", 3, "--out", tmp_path / "o.h5ad", "--groups", tmp_path / "g.txt"]
    run.refused(run("domains", slide, *arguments), ".csv")
