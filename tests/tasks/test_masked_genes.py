import pytest
import torch
from torch.testing import assert_close

from spatiagraph.data import Slide, make_tissue
from spatiagraph.models import ContextModel
from spatiagraph.models.base import gene_mask
from spatiagraph.tasks import MaskedGenes

SLIDE = make_tissue(150, num_genes=30, image=None, seed=0)


@pytest.fixture
def model() -> ContextModel:
    return ContextModel.for_slides([SLIDE], channels=8)


def batch_of(model: ContextModel, slide: Slide = SLIDE):
    data = model.recipe(slide)
    data.x = data.x.to_dense()
    return data


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_total_is_the_weighted_sum_of_the_parts(model):
    """SPATIA fact 23."""
    batch = batch_of(model)
    for weight in (0.0, 0.5, 2.0):
        output = MaskedGenes(model, niche_weight=weight).loss(batch, seeded())
        niche = output.parts.get("niche", torch.tensor(0.0))
        assert_close(output.loss.detach(), output.parts["cell"] + weight * niche)
        assert ("niche" in output.parts) == (weight > 0)
        assert output.n == 150


def test_a_batch_in_which_nothing_was_hidden_or_pooled_costs_nothing(model):
    """Such as one cell that few genes are measured of; a mean over nothing would end the run."""
    batch = batch_of(model)
    batch.niche = torch.full_like(batch.niche, -1)
    output = MaskedGenes(model, mask_ratio=1e-9).loss(batch, seeded())
    assert output.parts["cell"] == output.parts["niche"] == 0
    output.loss.backward()


def test_hidden_genes_do_not_reach_the_prediction(model):
    batch = batch_of(model)
    measured = gene_mask(batch)
    visible = torch.rand(batch.x.shape, generator=seeded()) > 0.5
    changed = batch.clone()
    changed.x = torch.where(visible, batch.x, batch.x + 3)
    out = [model(*model.inputs(b, visible=visible & measured)).cell for b in (batch, changed)]
    assert_close(*out)


def test_unmeasured_genes_add_no_loss(model):
    fewer = Slide(SLIDE.adata[:, 6:].copy(), slide_id="fewer")
    batch = batch_of(model, fewer)
    changed = batch.clone()
    changed.x[:, ~batch.gene_mask] = 50.0
    task = MaskedGenes(model)
    first, second = (task.loss(b, seeded()).loss for b in (batch, changed))
    assert first.isfinite()
    assert_close(first, second)


def test_context_cells_add_no_loss_of_their_own(model):
    batch = batch_of(model)
    batch.core[50:] = False
    assert MaskedGenes(model).loss(batch, seeded()).n == 50


def test_the_same_generator_gives_the_same_loss(model):
    batch, task = batch_of(model), MaskedGenes(model)
    assert_close(task.loss(batch, seeded()).loss, task.loss(batch, seeded()).loss)
    assert task.loss(batch, seeded(1)).loss != task.loss(batch, seeded()).loss


def test_normalised_values_are_learned_with_squared_error():
    adata = SLIDE.adata.copy()
    adata.X = adata.X.astype(float) * 0.37
    adata.layers.clear()
    slide = Slide(adata, slide_id="volume", expression="normalized")
    model = ContextModel.for_slides([slide], channels=8)
    assert model.likelihood == "gaussian"
    output = MaskedGenes(model).loss(batch_of(model, slide), seeded())
    assert output.loss.isfinite()
    assert set(output.parts) == {"cell", "niche"}


def test_mask_ratio_must_leave_something(model):
    for ratio in (0.0, 1.0):
        with pytest.raises(ValueError, match="between 0 and 1"):
            MaskedGenes(model, mask_ratio=ratio)
