"""Marker genes of groups of cells."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from numpy.testing import assert_allclose

from spatiagraph.data import Slide, make_tissue, marker_genes


def slide_of(x, **arguments):
    adata = AnnData(np.asarray(x, np.float32))
    adata.var_names = [f"g{i}" for i in range(adata.n_vars)]
    adata.obsm["spatial"] = np.random.default_rng(0).uniform(0, 100, (len(adata), 2))
    return Slide(adata, slide_id="s", check=False, **arguments)


def test_each_group_gets_the_gene_that_only_it_has():
    groups = pd.Series(["a", "b", "c"] * 20)
    rng = np.random.default_rng(0)
    x = rng.poisson(5, (60, 6)).astype(float)
    for gene, name in ((4, "a"), (2, "b"), (0, "c")):
        x[(groups == name).to_numpy(), gene] += 40
    found = marker_genes(slide_of(x), groups, num=1)
    marks = found.drop_duplicates("gene").set_index("marks")["gene"].to_dict()
    assert marks == {"a": "g4", "b": "g2", "c": "g0"}
    assert len(found) == 9


def test_means_and_t_are_those_of_scanpy():
    scanpy = pytest.importorskip("scanpy")
    slide = make_tissue(300, num_genes=25, image=None, seed=0)
    groups = slide.adata.obs["niche"].reset_index(drop=True)
    found = marker_genes(slide, groups, num=3)
    adata = AnnData(slide.counts.copy(), obs=slide.adata.obs[["niche"]].copy())
    adata.var_names = slide.symbols
    scanpy.pp.normalize_total(adata)
    scanpy.pp.log1p(adata)
    scanpy.tl.rank_genes_groups(adata, "niche", method="t-test")
    for name in groups.cat.categories:
        theirs = scanpy.get.rank_genes_groups_df(adata, name).set_index("names")["scores"]
        ours = found[(found["marks"] == name) & (found["group"] == name)].set_index("gene")["t"]
        # they divide variances by n - 1, and the median total of theirs is of all cells
        assert_allclose(ours, theirs[ours.index], rtol=2e-2)


def test_values_that_are_normalised_already_are_taken_as_they_are():
    groups = pd.Series(["a"] * 5 + ["b"] * 5)
    x = np.full((10, 2), 0.5)
    x[:5, 1], x[5:, 0] = 2.5, 1.5
    found = marker_genes(slide_of(x, expression="normalized"), groups, num=1)
    own = found[found["marks"] == found["group"]].set_index("gene")
    assert_allclose(own.loc[["g1", "g0"], "mean"], [2.5, 1.5])
    assert_allclose(own["share"], 1.0)


def test_cells_without_a_group_count_for_none():
    groups = pd.Series(["a", "b", None] * 20)
    x = np.random.default_rng(0).poisson(5, (60, 4)).astype(float)
    x[2::3] = 1000
    found = marker_genes(slide_of(x), groups, num=2)
    again = marker_genes(slide_of(np.delete(x, slice(2, None, 3), 0)), groups.dropna(), num=2)
    assert set(found["group"]) == {"a", "b"}
    assert (found["share"].to_numpy() == again["share"].to_numpy()).all()
