"""SPATIA through the same ``fit`` as every other model."""

import os
import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.testing import assert_close

from spatiagraph.data import Slide, make_tissue
from spatiagraph.data.loader import NicheBatches
from spatiagraph.data.recipe import KNN, Crop, Grid, Neighborhoods
from spatiagraph.inference import embed, impute
from spatiagraph.models import ContextModel, SlideModel, Spatia
from spatiagraph.models.spatia import TINY
from spatiagraph.nn import GeneTokenEncoder, ImageEncoder, ProfileStart, TokenFusion
from spatiagraph.tasks import SpatiaPretraining, SpatiaWeights
from spatiagraph.training import encode_cells, fit
from spatiagraph.training.devices import as_device
from tests.masked_counts import MaskedCounts, block_of

SLIDE = make_tissue(260, num_genes=30, image="dapi", seed=0)
RUN = {"max_epochs": 2, "tile_size": 120, "accelerator": "cpu", "progress": False, "seed": 3}
SMALL = replace(TINY, channels=16, gene_channels=16, gene_layers=1, num_tokens=20)
DROPPING = replace(SMALL, dropout=0.1)


def spatia(size=SMALL, recipe=None, **options) -> Spatia:
    return Spatia.for_slides([SLIDE], size, recipe=recipe, **options)


def genes_alone() -> Spatia:
    return spatia(recipe=Spatia.default_recipe([SLIDE], crops=()))


class StopInSecondEpoch(Callback):
    """Press Ctrl-C."""

    def on_train_batch_end(self, trainer, *args):
        if trainer.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)


def test_it_trains_and_resumes_to_the_same_bits(tmp_path):
    whole, broken = spatia(DROPPING), spatia(DROPPING)
    fit(whole, [SLIDE], **RUN, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(broken, [SLIDE], **RUN, out=tmp_path / "broken", callbacks=[StopInSecondEpoch()])
    again = spatia(DROPPING)
    fit(again, [SLIDE], **RUN, out=tmp_path / "broken")
    for name, value in whole.state_dict().items():
        assert_close(again.state_dict()[name], value, rtol=0, atol=0)
    task = SpatiaPretraining(spatia(DROPPING), SpatiaWeights(denoise=0.5))
    with pytest.raises(ValueError, match=r"different: task"):
        fit(task.model, [SLIDE], **RUN, task=task, out=tmp_path / "broken")


def binned() -> Spatia:
    genes = GeneTokenEncoder(30, 16, num_layers=1, heads=2, normalization="none")
    fusion = TokenFusion(16, 64, 16, num_cell_tokens=2, heads=2)
    model = spatia(genes=genes, fusion=fusion)
    model.cell_encoder.encoder.tokenizer = "bins"
    return model


def published() -> Spatia:
    fusion = TokenFusion(16, 64, 16, num_cell_tokens=2, heads=2, residual="double")
    return spatia(replace(SMALL, normalization="sum"), fusion=fusion, start=False)


def of_spots() -> Spatia:
    recipe = Spatia.default_recipe([SLIDE], graph=KNN(8), levels=(Neighborhoods(8), Grid(200.0)))
    return spatia(replace(SMALL, image="test_convnext", image_options={}), recipe)


def with_images() -> Spatia:
    crops = (Crop(13.6), Crop(54.4, of="niche"), Crop(217.6, of="tissue"))
    return spatia(recipe=Spatia.default_recipe([SLIDE], crops=crops))


def normalised() -> Spatia:
    recipe = Spatia.default_recipe([SLIDE], crops=())
    return spatia(recipe=recipe, likelihood="gaussian")


VARIANTS = {  # how to build it → what must be so of the model, and its terms beside the common ones
    binned: (lambda m: m.cell_encoder.encoder.tokenizer == "bins", {"denoise", "masked_image"}),
    published: (
        lambda m: (
            not isinstance(m.cell_encoder, ProfileStart)
            and m.cell_encoder.genes.normalization == "sum"
            and m.cell_encoder.fusion.residual == "double"
        ),
        {"denoise"},
    ),
    normalised: (lambda m: m.cell_encoder.image is None, set()),
    of_spots: (lambda m: isinstance(m.cell_encoder.image, ImageEncoder), {"denoise"}),
    with_images: (lambda m: all(x.look for x in m.context_encoder.levels), {"masked_image"}),
}


@pytest.mark.parametrize("build", VARIANTS, ids=lambda build: build.__name__)
def test_every_variant_is_what_it_says_trains_and_embeds(build):
    is_so, terms = VARIANTS[build]
    model = build()
    assert is_so(model)
    result = fit(model, [SLIDE], **{**RUN, "max_epochs": 1})
    assert result.history["loss"].notna().all()
    assert terms <= set(result.history)
    assert ("denoise" in result.history) == (model.likelihood == "zinb")
    assert embed(model, SLIDE, progress=False).obsm["X_spatia"].shape == (260, 16)


def test_cells_are_cached_where_the_model_will_train(monkeypatch):
    asked = []

    def encode(model, data, *, device, progress):
        asked.append(device)
        return encode_cells(model, data, device="cpu", progress=progress)

    monkeypatch.setattr("spatiagraph.training.fitting.encode_cells", encode)
    for accelerator in ("cpu", "auto"):
        run = {**RUN, "max_epochs": 1, "accelerator": accelerator}
        fit(genes_alone(), [SLIDE], **run, cache_cells=True)
    assert asked == ["cpu", "auto"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert as_device("auto") == torch.device("cuda")
    assert as_device("cpu") == torch.device("cpu")


def test_the_second_stage_leaves_the_cells_as_they_are():
    model = spatia()
    cells = {k: v.clone() for k, v in model.cell_encoder.state_dict().items()}
    context = {k: v.clone() for k, v in model.context_encoder.state_dict().items()}
    result = fit(model, [SLIDE], **RUN, cache_cells=True)
    for name, value in model.cell_encoder.state_dict().items():
        assert_close(value, cells[name], rtol=0, atol=0)
    changed = model.context_encoder.state_dict()
    assert any(not torch.equal(changed[name], value) for name, value in context.items())
    assert "denoise" not in result.history
    trained = [p for p in model.cell_encoder.genes.parameters() if p.requires_grad]
    assert trained  # and can be trained again


def test_cached_cells_are_those_of_the_model():
    model = spatia().eval()
    data = model.recipe(SLIDE)
    z = encode_cells(model, data, chunk_size=100)
    with torch.no_grad():
        data = data.dense()
        assert_close(z, model.encode(model.cells(data)), rtol=1e-4, atol=1e-5)


def test_a_task_that_hides_genes_refuses_cached_cells():
    model = ContextModel.for_slides([SLIDE], channels=8)
    with pytest.raises(ValueError, match="MaskedGenes hides parts of the cells"):
        fit(model, [SLIDE], **RUN, cache_cells=True)


def test_niches_from_all_slides_share_a_batch():
    other = make_tissue(200, num_genes=30, image="dapi", seed=1, slide_id="b")
    weights = SpatiaWeights(source_adversary=0.1)
    model = Spatia.for_slides([SLIDE, other], SMALL, labels=["cell_type"])
    task = SpatiaPretraining(model, weights, num_sources=2)
    result = fit(model, [SLIDE, other], **RUN, task=task, batches=NicheBatches("cell_type"))
    assert {"denoise", "classification", "source_adversary"} <= set(result.history)
    with pytest.raises(ValueError, match=r"among the labels \['cell_type'\], got 'region'"):
        fit(model, [SLIDE], **RUN, batches=NicheBatches("region"))


def test_embeddings_of_all_levels_are_written():
    adata = embed(spatia(), SLIDE, progress=False)
    assert {"X_spatia", "X_spatia_niche", "X_spatia_tissue"} <= set(adata.obsm)
    assert {"spatia_niche", "spatia_tissue"} <= set(adata.obs)


def test_unmeasured_genes_are_imputed():
    model = genes_alone()
    fit(model, [SLIDE], **{**RUN, "max_epochs": 8})
    visible = SLIDE.adata[:, :24].copy()
    fewer = type(SLIDE)(visible, slide_id="fewer")
    imputed = impute(model, fewer)
    assert list(imputed.columns) == SLIDE.symbols
    assert list(imputed.index) == list(visible.obs_names)
    hidden = imputed.iloc[:, 24:]
    measured = pd.DataFrame(SLIDE.counts[:, 24:].toarray(), imputed.index, hidden.columns)
    share = measured.div(SLIDE.depth, axis=0)
    assert hidden.corrwith(share).mean() > 0.1
    with pytest.raises(ValueError, match="Expected a model of counts"):
        impute(spatia(likelihood="gaussian"), fewer)


def test_a_model_without_an_objective_needs_a_task():
    class Unknown(SlideModel):
        recipe = spatia().recipe

    with pytest.raises(ValueError, match="Expected a 'task' for a Unknown, got None"):
        fit(Unknown(), [SLIDE], **RUN)


def test_values_are_predicted_from_the_start_on():
    """Components are of the roots of values, and so is what the decoder learns."""
    made = make_tissue(400, num_genes=30, image=None, seed=0)
    adata = made.adata.copy()
    depth = np.asarray(adata.X.sum(1)).reshape(-1, 1)
    adata.X = (adata.X.toarray() * 200 / depth).astype(np.float32)
    slide = Slide(adata, slide_id="values", assume_um=True, expression="normalized")
    train, test = block_of(slide)
    model = Spatia.for_slides([train], SMALL, recipe=Spatia.default_recipe([train], crops=()))
    score = MaskedCounts(model, train, test)
    start = score.of_model(model)
    assert model.likelihood == "gaussian"
    assert start > score.of_similar_cells() > 0  # gains over the mean profile
    fit(model, train, max_steps=60, accelerator="cpu", progress=False, validation=None)
    assert score.of_model(model) > 0.8 * start
