"""Genes of donors never seen from their images: brightness that shows them is found."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

import spatiagraph as sg
from spatiagraph.data import SlideImage
from spatiagraph.evaluate import Cells
from spatiagraph.evaluate.inputs import UnscorableError
from spatiagraph.inference import ZeroShot, score_donor_images
from spatiagraph.models import ContextModel

SIDE, STEP = 8, 40  # cells each way, and µm between them; a pixel is a µm


def bright_slide(seed, *, image=True):
    """Cells on a grid; the brighter the square of a cell, the more of all its genes."""
    level = np.random.default_rng(seed).uniform(0.2, 1, (SIDE, SIDE))
    pixels = np.kron(level * 255, np.ones((STEP, STEP)))[..., None].repeat(3, axis=2)
    y, x = np.divmod(np.arange(SIDE**2), SIDE)
    values = np.expm1(level.ravel()[:, None] * [1.0, 2.0, 0.5, 1.5, 3.0]).astype(np.float32)
    adata = anndata.AnnData(values, var=pd.DataFrame(index=list("ABCDE")))
    adata.obs_names = [f"{seed}_{n}" for n in range(SIDE**2)]
    adata.obsm["spatial"] = np.stack([x + 0.5, y + 0.5], axis=1) * STEP
    picture = SlideImage([pixels.astype(np.uint8)], mpp=1.0) if image else None
    return sg.Slide(
        adata, picture, slide_id=f"s{seed}", donor=f"d{seed}", expression="normalized",
        assume_um=True,
    )  # fmt: skip


def cells_of(slides):
    donor = np.repeat(np.array([s.donor for s in slides], dtype=object), SIDE**2)
    counts = csr_matrix(np.concatenate([slide.counts.toarray() for slide in slides]))
    pos = np.concatenate([slide.pos for slide in slides])
    return Cells(counts, pos, donor, "normalized"), donor


def test_colours_that_show_the_genes_predict_those_of_another_donor():
    slides = [bright_slide(n) for n in range(3)]
    table = score_donor_images({}, slides, *cells_of(slides), window_um=32.0)
    mean = table.groupby("embedding")["pearson_mean"].mean()
    assert mean["color_texture"] > 0.98
    assert mean["train_mean"] == 0
    assert (table["num_cells"] == SIDE**2).all()


def test_donors_without_images_and_models_that_need_them_are_left_out(caplog):
    slides = [bright_slide(0), bright_slide(1), bright_slide(2, image=False)]
    start = ZeroShot(slides, lambda seen: ContextModel.for_slides(seen, channels=8, image=None))
    found = score_donor_images({"own": start}, slides, *cells_of(slides), window_um=32.0)
    assert {*found["donor"]} == {"d0", "d1"}
    assert "by models are left out: no image of s2" in caplog.text
    assert {*found["embedding"]} == {
        "color_texture", "resnet18_random", "train_mean", "depth_oracle"
    }  # fmt: skip
    with pytest.raises(UnscorableError, match="two donors with images, got 1"):
        score_donor_images({}, slides[1:], *cells_of(slides[1:]), window_um=32.0)


def test_embeddings_of_images_have_read_no_gene():
    slides = [bright_slide(n) for n in range(3)]
    zero_shot = ZeroShot(slides, lambda seen: ContextModel.for_slides(seen, channels=8, seed=0))
    cells, donor = cells_of(slides)
    table = score_donor_images({"own": zero_shot}, slides, cells, donor, window_um=32.0)
    own = table[table["embedding"] == "own"]
    # as it is made, images add nothing to the null that stands in place of genes
    assert len(own) == 3
    assert (own["pearson_mean"].abs() < 1e-6).all()
