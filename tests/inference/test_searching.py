"""A search in Python; what hits are is tested with the items of an index, the command beside it."""

import numpy as np
import pytest

import spatiagraph as sg
from spatiagraph.data import make_tissue, photographed_slide, spots_of_cells
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.recipe import Grid, Recipe
from spatiagraph.inference import QuerySlide, embed, search_slides
from spatiagraph.models import ContextEncoder, ContextModel, STAlign
from spatiagraph.nn import CellEncoder, GeneEncoder
from spatiagraph.nn.level import Level
from spatiagraph.retrieval import NicheIndex, Selection


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


@pytest.fixture(scope="module")
def photo(aligned):
    """The second section as one that was only photographed, embedded."""
    model, slides = aligned
    section = photographed_slide(slides[1].image, model.panel, pos=slides[1].pos, slide_id="photo")
    sg.embed(model, section, progress=False, device="cpu")
    return section


def test_an_image_is_not_compared_with_what_is_fused(aligned, photo):
    model, slides = aligned
    asked = Selection(cells="spot9")
    words = "'niche' of genes and image, got 'niche' of image. Pass level='niche_gene', by='niche_i"
    for query in (
        QuerySlide(slides[1], model, "image"),
        QuerySlide(photo, model),
        QuerySlide(photo),
    ):
        with pytest.raises(ValueError, match=words):
            search_slides(slides[:1], asked, 3, query=query, apart_um=0)
    genes = QuerySlide(slides[1], model, "genes")
    with pytest.raises(
        ValueError, match="got 'niche' of genes. Pass level='niche_img', by='niche_g"
    ):
        search_slides(slides[:1], asked, 3, query=genes, apart_um=0)
    with pytest.raises(ValueError, match="'cell' of genes and image, got 'cell' of image"):
        search_slides(slides[:1], asked, 3, query=QuerySlide(photo), level="cell", apart_um=0)
    for query in (QuerySlide(slides[1], model, "image"), QuerySlide(photo), QuerySlide(slides[1])):
        names = {"level": "niche_gene", "by": "niche_img"}
        found = search_slides(slides[:1], asked, 3, query=query, apart_um=0, **names)
        image = slides[1].adata.obsm["X_stalign_niche_img"][9]
        genes = slides[0].adata.obsm["X_stalign_niche_gene"]
        cosine = genes @ image / np.linalg.norm(genes, axis=1)
        assert found.hits["row"].tolist() == np.argsort(-cosine)[:3].tolist()


def test_slides_of_other_modalities_are_not_searched_together(aligned, photo):
    _, slides = aligned
    asked = Selection(cells="spot9", slide="s0")
    words = (
        "genes and image of s0; image of photo. All of them have 'niche_img': pass level='niche_"
    )
    with pytest.raises(ValueError, match=words):
        search_slides([slides[0], photo], asked, 3)
    found = search_slides([slides[0], photo], asked, 3, level="niche_img", apart_um=0)
    assert len(found.hits) == 3
    index = NicheIndex.from_slides({"s0": slides[0].adata}, "X_stalign_niche")
    with pytest.raises(ValueError, match="made of genes and image as in the index, .* of image"):
        index.append_slides({"photo": photo.adata})
    assert index.num_items == slides[0].num_cells
    # sections that were all photographed have one kind
    other = photo[:]
    other.slide_id = "other"
    assert len(search_slides([photo, other], Selection(cells="spot9", slide="photo"), 2).hits) > 0


@pytest.mark.parametrize(
    ("level", "by"), [("niche_gene", "spot_img"), ("niche_gene", "niche"), ("spot", "spot_gene")]
)
def test_vectors_that_were_never_contrasted_are_refused(aligned, level, by):
    _, slides = aligned
    asked, names = Selection(cells="spot9", slide="s0"), {"level": level, "by": by}
    scale = level.split("_")[0]
    for noted in (True, False):
        if not noted:  # files of an earlier version have slots alone
            slides = [slide[:] for slide in slides]
            for slide in slides:
                notes = slide.adata.uns["spatiagraph"]
                embed_notes = {k: v for k, v in notes["embed"].items() if k != "made_of"}
                slide.adata.uns["spatiagraph"] = {**notes, "embed": embed_notes}
        with pytest.raises(ValueError, match=f"one space with .*, {level!r} of .*='{scale}_"):
            search_slides(slides, asked, 3, **names)
    assert len(search_slides(slides, asked, 2, level="spot", by="niche", apart_um=0).hits) == 2


def test_vectors_left_from_an_earlier_embedding_are_refused(aligned, photo):
    """A slide that had counts and is embedded by its image alone keeps slots of its genes."""
    _, slides = aligned
    left = photo[:]
    left.adata.obsm["X_stalign_niche_gene"] = slides[1].adata.obsm["X_stalign_niche_gene"]
    with pytest.raises(
        ValueError, match="got 'niche_gene' of an earlier one. Embed the slide with"
    ):
        search_slides([left], Selection(cells="spot9"), 3, level="niche_gene")
    left.adata.obsm["X_stalign_mine"] = left.adata.obsm["X_stalign_niche"]
    assert (
        len(search_slides([left], Selection(cells="spot9"), 2, level="mine", apart_um=0).hits) == 2
    )
