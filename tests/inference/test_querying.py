import copy

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from numpy.testing import assert_allclose, assert_array_equal

from spatiagraph import fit
from spatiagraph.data import Cohort, Slide, make_tissue
from spatiagraph.inference import embed, embed_query
from spatiagraph.models import ContextModel, Spatia
from spatiagraph.retrieval import NicheIndex


@pytest.fixture(scope="module", params=["context", "spatia"])
def tissue(request):
    """A slide with an image, and a model with every gate open, as training would leave it."""
    slide = make_tissue(300, num_genes=40, image="he", seed=0)
    if request.param == "context":
        model = ContextModel.for_slides([slide], channels=16)
    else:
        model = Spatia.for_slides([slide], "tiny")
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn_like(parameter) * 0.1
    return model, slide


def _other_counts(slide):
    adata = slide.adata.copy()
    adata.layers.clear()
    adata.X = adata.X[:, ::-1].copy()
    return Slide(adata, slide.image, slide_id="other", check=False)


def test_a_query_of_everything_is_what_embed_writes(tissue):
    model, slide = tissue
    adata = embed(model, slide, progress=False)
    query = embed_query(model, slide)
    assert_allclose(query["niche"], adata.obsm[f"X_{model.name}_niche"], atol=1e-6)
    before = sorted(adata.obsm)
    embed_query(model, slide, "image")
    assert sorted(adata.obsm) == before


def test_a_query_by_image_does_not_look_at_genes(tissue):
    model, slide = tissue
    first, second = (embed_query(model, s, "image") for s in (slide, _other_counts(slide)))
    for level in ("cell", "niche", "tissue"):
        assert np.isfinite(first[level]).all()
        assert_array_equal(first[level], second[level])
    assert first["niche"].std(0).max() > 1e-3
    assert np.abs(first["cell"] - embed_query(model, slide)["cell"]).max() > 1e-3


def test_a_missing_modality_is_a_learned_null_and_not_zeros(tissue):
    model, slide = tissue
    before = {by: embed_query(model, slide, by)["cell"] for by in ("genes", "image")}
    changed = copy.deepcopy(model)
    encoder = changed.cell_encoder
    getattr(encoder, "encoder", encoder).fusion.gene_null.data += 1
    assert np.abs(embed_query(changed, slide, "image")["cell"] - before["image"]).max() > 1e-3
    assert_array_equal(embed_query(changed, slide, "genes")["cell"], before["genes"])


def test_a_query_by_genes_does_not_look_at_the_image(tissue):
    model, slide = tissue
    bare = Slide(slide.adata, slide_id="bare")
    first, second = (embed_query(model, s, "genes") for s in (slide, bare))
    assert_array_equal(first["niche"], second["niche"])
    assert np.abs(first["cell"] - embed_query(model, slide)["cell"]).max() > 1e-3


def test_a_photographed_slide_needs_no_genes(tissue):
    model, slide = tissue
    bare = AnnData(
        np.zeros((slide.num_cells, 0), np.float32),
        obs=pd.DataFrame(index=slide.adata.obs_names),
        obsm={"spatial": slide.pos},
    )
    photographed = Slide(bare, slide.image, slide_id="he", check=False)
    query = embed_query(model, photographed, "image")
    assert_array_equal(query["niche"], embed_query(model, slide, "image")["niche"])
    index = NicheIndex.from_slides(
        {"s": embed(model, slide, progress=False)}, f"X_{model.name}_niche"
    )
    assert len(index.search(query["niche"][:3], k=5)) == 15


def _photographed(slide):
    """The same places, with nothing counted."""
    adata = AnnData(
        np.zeros((slide.num_cells, slide.num_genes), np.float32),
        obs=slide.adata.obs,
        var=slide.adata.var[[]],
        obsm={"spatial": slide.pos},
    )
    return Slide(adata, slide.image, slide_id="photo")


def test_zeros_of_a_photographed_slide_are_no_counts(tissue):
    """``embed`` takes its genes for missing, as a query by the image does."""
    model, slide = tissue
    adata = embed(model, _photographed(slide), progress=False)
    expected = embed_query(model, slide, "image")
    for level, name in (("cell", f"X_{model.name}"), ("niche", f"X_{model.name}_niche")):
        assert_allclose(adata.obsm[name], expected[level], atol=1e-6)
    assert_allclose(embed_query(model, _photographed(slide))["cell"], expected["cell"], atol=1e-6)
    index = NicheIndex.from_slides(  # of a model with nulls all vectors lie in one space
        {"photo": adata, "s": embed(model, slide, progress=False)}, f"X_{model.name}_niche"
    )
    assert index.num_items == 2 * slide.num_cells


def test_a_photographed_slide_is_refused_where_genes_are_needed(tmp_path):
    slide = make_tissue(200, num_genes=40, image="he", seed=0)
    blind = ContextModel.for_slides([slide], channels=8, image=None)
    photo = _photographed(slide)
    words = "counts in slide 'photo', which the ContextModel reads, got none in all 200 cells"
    with pytest.raises(ValueError, match=f"{words}. Embed it with a model of images"):
        embed(blind, photo, progress=False)
    seeing = ContextModel.for_slides([slide], channels=8)
    with pytest.raises(ValueError, match=words):
        embed_query(seeing, photo, "genes")
    with pytest.raises(ValueError, match=f"{words}. Leave it out of training"):
        fit(seeing, [slide, photo], max_steps=1, progress=False, accelerator="cpu")
    with pytest.raises(ValueError, match="to make a cohort of, got slide 'photo' without"):
        Cohort.create(tmp_path / "c.zarr", [slide, photo], seeing.recipe)


def test_a_modality_that_is_not_there_is_refused():
    slide = make_tissue(200, num_genes=40, image=None, seed=0)
    model = ContextModel.for_slides([slide], channels=8)
    with pytest.raises(ValueError, match="reads images, this one reads genes alone"):
        embed_query(model, slide, "image")
    with pytest.raises(ValueError, match="'modality' genes, image or None, got 'he'"):
        embed_query(model, slide, "he")
    pictured = make_tissue(200, num_genes=40, image="he", seed=0)
    seeing = ContextModel.for_slides([pictured], channels=8)
    with pytest.raises(ValueError, match="an image with slide 'synthetic', got none"):
        embed_query(seeing, slide, "image")
    blind = Spatia.for_slides([pictured], "tiny", genes=False)
    with pytest.raises(ValueError, match="reads genes, this one reads images alone"):
        embed_query(blind, pictured, "genes")


def test_slides_embedded_with_other_weights_are_not_searched_together():
    slides = [
        make_tissue(200, num_genes=40, image=None, seed=i, slide_id=f"s{i}") for i in range(2)
    ]
    model = ContextModel.for_slides(slides, channels=8)
    first = embed(model, slides[0], progress=False)
    index = NicheIndex.from_slides({"s0": first}, "X_context_niche")
    embedded = embed(model, slides[1], progress=False)
    index.append_slides({"s1": embedded})
    model.cell_encoder.genes.initialize(torch.rand(50, len(model.panel)))
    other = embed(model, slides[1], progress=False)
    with pytest.raises(ValueError, match="slides embedded with one model, got s[01] by"):
        NicheIndex.from_slides({"s0": first, "s1": other}, "X_context_niche")
