"""UMAPs that are made for a page; those of slides that have one are drawn as they are."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from spatiagraph.data import make_tissue
from spatiagraph.report import slide_page
from spatiagraph.report.projection import project

pytest.importorskip("umap")

SLIDE = make_tissue(600, num_genes=30, image=None, seed=0)
EMBEDDING = np.eye(5, dtype=np.float32)[SLIDE.adata.obs["niche"].cat.codes]
EMBEDDING = EMBEDDING + 0.01 * np.random.default_rng(0).standard_normal(EMBEDDING.shape)
SLIDE.adata.obsm["X_context_niche"] = EMBEDDING.astype(np.float32)


def test_a_umap_is_made_of_embeddings_where_the_slide_has_none():
    options = {"domains": {"found": SLIDE.adata.obs["niche"]}, "max_interactive": 0}
    html = slide_page(SLIDE, embedding="X_context_niche", **options).html()
    assert "of their embeddings X_context_niche" in html
    slide = SLIDE[:]
    assert "UMAP" not in slide_page(slide, **options).html()  # not known to be embedded
    slide.adata.uns["spatiagraph"] = {"name": "mine", "levels": ["region", "tissue"]}
    slide.adata.obsm["X_mine_region"] = slide.adata.obsm["X_mine_tissue"] = EMBEDDING
    assert "of their embeddings X_mine_region" in slide_page(slide, **options).html()


def test_a_umap_keeps_neighbours_and_leaves_out_what_has_no_place():
    z = EMBEDDING.copy()
    z[5] = np.nan
    place = project(z)
    assert np.flatnonzero(np.isnan(place).any(axis=1)).tolist() == [5]
    niche = SLIDE.adata.obs["niche"].cat.codes.to_numpy()
    known = np.arange(len(z)) != 5
    near = NearestNeighbors(n_neighbors=2).fit(place[known])
    other = near.kneighbors(place[known], return_distance=False)[:, 1]
    assert (niche[known][other] == niche[known]).mean() > 0.95
    np.testing.assert_array_equal(project(z), place)
    assert np.isfinite(project(z, max_cells=100)).all(axis=1).sum() == 100
    assert np.isnan(project(z[:20])).all()
