"""Notes of an embedding: the model and its levels, whatever they are called."""

import numpy as np
import pytest

from spatiagraph.data import make_tissue
from spatiagraph.inference.domains import find_domains
from spatiagraph.inference.embedded import check_level, level_names, model_name


def noted(**notes):
    slide = make_tissue(60, num_genes=10, num_types=3, image=None, seed=0)
    z = np.random.default_rng(0).normal(size=(60, 3))
    slide.adata.obsm.update({"X_m": z, "X_m_block": z, "X_m_niche": z})
    slide.adata.uns["spatiagraph"] = {"name": "m", **notes}
    return slide


def test_levels_are_those_that_were_noted():
    adata = noted(levels=["block"]).adata
    assert level_names(adata) == ("block",)
    assert (check_level(adata, None), check_level(adata, "cell")) == ("block", "cell")
    assert check_level(adata, "niche") == "niche"  # another vector of the model
    with pytest.raises(ValueError, match="cell, block, niche, got 'tissue'"):
        check_level(adata, "tissue")
    assert level_names(noted().adata) == ("niche",)  # embedded before they were noted
    with pytest.raises(ValueError, match="names of levels.*got 'block'"):
        level_names(noted(levels="block").adata)


def test_a_slide_without_the_embedding_of_a_level_is_refused():
    adata = noted(levels=["block"]).adata
    assert model_name(adata) == "m"
    del adata.obsm["X_m_block"]
    with pytest.raises(ValueError, match="found no embeddings in obsm"):
        model_name(adata)


def test_a_model_without_levels_has_domains_of_its_cells():
    found = find_domains(noted(levels=[]), None, num_domains=3)
    assert [values.nunique() for values in found.domains.values()] == [3]
    assert found.index.key == "X_m"


def test_a_vector_beside_the_cells_is_no_level_unless_asked_for():
    adata = noted(levels=[]).adata
    adata.obsm["X_m_umap"] = adata.obsm["X_m"][:, :2]
    assert check_level(adata, None) == "cell"
    assert check_level(adata, "umap") == "umap"
