"""Genes found by images on a page."""

import numpy as np
import pytest

from spatiagraph import keys
from spatiagraph.data import make_tissue
from spatiagraph.report.compose import slide_page
from spatiagraph.report.modalities import image_and_gene

NUM = 200


def slide_of(image, gene):
    """A slide that has vectors of both, as ST-Align leaves them."""
    slide = make_tissue(NUM, num_genes=30, image="he", seed=0)
    vectors = {"": image, "niche": image, "niche_img": image, "niche_gene": gene}
    for level, value in vectors.items():
        slide.adata.obsm[keys.embedding_key("stalign", level or "cell")] = value
    notes = slide.adata.uns.setdefault(keys.UNS, {})
    notes |= {"name": "stalign", "levels": ["niche"]}
    return slide


@pytest.mark.parametrize(
    ("gene", "share", "number"), [("same", "100.0%", 1), ("other", "0.0%", 200)]
)
def test_how_often_an_image_finds_its_genes_is_said_and_shown(gene, share, number):
    image = np.random.default_rng(0).normal(size=(NUM, 16)).astype(np.float32)
    slide = slide_of(image, image if gene == "same" else -image)
    page = slide_page(slide, max_interactive=0).html()
    assert "Genes found by images" in page
    assert f"finds the genes of {share} of the niches among the 10 most similar of 200" in page
    assert "5.0% would be chance" in page
    assert f"Its own are number {number} of 200" in page


def test_models_that_align_nothing_have_no_such_section():
    image = np.ones((NUM, 4), np.float32)
    slide = slide_of(image, image)
    del slide.adata.obsm[keys.embedding_key("stalign", "niche_gene")]
    assert image_and_gene(slide.adata) == {}
    assert "Genes found by images" not in slide_page(slide, max_interactive=0).html()
    slide = slide_of(np.full_like(image, np.nan), image)  # cells that were not photographed
    assert image_and_gene(slide.adata) == {}
    assert image_and_gene(make_tissue(20, num_genes=20).adata) == {}


def test_cells_without_an_image_are_left_out():
    image = np.random.default_rng(0).normal(size=(NUM, 16)).astype(np.float32)
    gene = image.copy()
    image[:50] = np.nan
    page = slide_page(slide_of(image, gene), max_interactive=0).html()
    assert "of 100.0% of the niches among the 10 most similar of 150" in page
    assert "Its own are number 1 of 150" in page
