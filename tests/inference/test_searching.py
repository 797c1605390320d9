"""A search in Python; what hits are is tested with the items of an index, the command beside it."""

import numpy as np
import pytest

import spatiagraph as sg
from spatiagraph.data import make_tissue, spots_of_cells
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.recipe import Grid, Recipe
from spatiagraph.inference import QuerySlide, embed, search_slides
from spatiagraph.models import ContextEncoder, ContextModel, STAlign
from spatiagraph.nn import CellEncoder, GeneEncoder
from spatiagraph.nn.level import Level
from spatiagraph.retrieval import Selection


@pytest.fixture(scope="module")
def embedded():
    slides = [make_tissue(200, num_genes=20, image=None, seed=seed) for seed in (0, 1)]
    slides[1].slide_id = "other"
    model = ContextModel.for_slides(slides, channels=8)
    for slide in slides:
        embed(model, slide, progress=False)
    return model, slides


def test_the_levels_of_a_model_may_have_any_names():
    slide = make_tissue(200, num_genes=20, image=None, seed=0)
    panel = GenePanel.from_slides([slide])
    model = ContextModel(
        Recipe(panel, levels=(Grid(50.0, name="plot"), Grid(100.0, name="field"))),
        CellEncoder(GeneEncoder(20, 8)),
        ContextEncoder(8, levels=[Level(8), Level(8)]),
    )
    embed(model, slide, progress=False)
    found = search_slides([slide], Selection(cells="cell7"), k=2)
    assert found.level == "plot"
    own = slide.adata.obs["context_plot"].loc[["cell7", *found.hits["id"]]]
    assert own.is_unique
    options = {"level": "field", "max_distance": 2.0}
    assert search_slides([slide], Selection(cells="cell7"), k=1, **options).level == "field"


def test_a_title_says_what_was_selected(embedded):
    _, slides = embedded
    niche = slides[0].adata.obs["niche"].iloc[0]
    found = search_slides(slides, Selection(where={"niche": niche}, slide="other"), k=1)
    number = int((slides[1].adata.obs["niche"] == niche).sum())
    assert found.query.name == f"niche={niche} of other ({number} cells)"
    corners = [(0, 0), (60, 0), (60, 60), (0, 60)]
    found = search_slides(slides, Selection(region=corners, slide="other", name="the corner"), k=1)
    assert found.query.name.startswith("the corner of other (")


def test_a_slide_that_is_not_searched_asks_as_if_it_were(embedded):
    """The same cell, by the embeddings in its file, by the model anew, and in the index."""
    model, slides = embedded
    asked = Selection(cells="cell7", slide="other")
    inside = search_slides(slides, asked, k=3, apart_um=40.0)
    for query in (QuerySlide(slides[1]), QuerySlide(slides[1], model)):
        found = search_slides(slides, asked, k=3, query=query, apart_um=40.0)
        assert found.hits["id"].tolist() == inside.hits["id"].tolist()
        np.testing.assert_allclose(found.hits["distance"], inside.hits["distance"], atol=1e-6)
        assert found.query.section is slides[1]


def test_a_modality_alone_needs_a_model(embedded):
    with pytest.raises(ValueError, match="model= with modality="):
        QuerySlide(embedded[1][0], modality="genes")


@pytest.fixture(scope="module")
def aligned():
    """Two sections whose images and genes were brought to one space."""
    sections = [
        spots_of_cells(
            sg.make_tissue(700, num_genes=40, image="he", seed=i, slide_id=f"s{i}"),
            40.0,
            diameter_um=None,
        )
        for i in range(2)
    ]
    model = STAlign.for_slides(sections, "tiny", num_genes=None)
    for slide in sections:
        sg.embed(model, slide, progress=False, device="cpu")
    return model, sections


def test_genes_are_found_by_the_image_of_a_spot(aligned):
    """What is compared are image vectors of the query and gene vectors of the rest."""
    _, slides = aligned
    names = {"level": "niche_gene", "by": "niche_img"}
    found = search_slides(slides, Selection(cells="spot9", slide="s0"), 5, apart_um=0, **names)
    assert found.query.name == "spot9 of s0 by niche_img"
    genes = np.concatenate([s.adata.obsm["X_stalign_niche_gene"] for s in slides])
    image = slides[0].adata.obsm["X_stalign_niche_img"][9]
    cosine = genes @ image / np.linalg.norm(genes, axis=1)
    cosine[9] = -2  # the query itself is no hit
    best = np.argsort(-cosine)[:5]
    assert found.hits["row"].tolist() == best.tolist()


def test_images_are_found_by_genes_of_a_slide_that_is_not_searched(aligned):
    model, slides = aligned
    one = slides[0][:]
    names = {"level": "spot_img", "by": "spot_gene", "apart_um": 0}
    asked = QuerySlide(one, model, "genes")
    found = search_slides([slides[1]], Selection(cells="spot9"), 3, query=asked, **names)
    image = slides[1].adata.obsm["X_stalign_spot_img"]
    genes = slides[0].adata.obsm["X_stalign_spot_gene"][9]
    cosine = image @ genes / np.linalg.norm(image, axis=1)
    assert found.hits["row"].tolist() == np.argsort(-cosine)[:3].tolist()
    embedded = search_slides(
        [slides[1]], Selection(cells="spot9"), 3, query=QuerySlide(one), **names
    )
    assert embedded.hits["row"].tolist() == found.hits["row"].tolist()
    with pytest.raises(ValueError, match=r"vectors that the query has, .*spot_gene.*'spot_img'"):
        search_slides([slides[1]], Selection(cells="spot9"), 3, query=asked, level="spot_img")


def test_vectors_of_other_spaces_are_refused(aligned):
    _, slides = aligned
    with pytest.raises(ValueError, match=r"niche_gene.*, got 'genes'"):
        search_slides(slides, Selection(cells="spot9", slide="s0"), 3, by="genes")
    with pytest.raises(ValueError, match="vectors of one space with what is searched"):
        search_slides(slides, Selection(cells="spot9", slide="s0"), 3, level="spot_img", by="cell")
