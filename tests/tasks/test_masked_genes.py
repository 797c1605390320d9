import copy

import numpy as np
import pytest
import torch
from scipy.stats import nbinom
from torch.testing import assert_close

from spatiagraph.data import Slide, make_tissue
from spatiagraph.models import ContextModel
from spatiagraph.models.base import gene_mask
from spatiagraph.tasks import MaskedGenes
from spatiagraph.tasks.streams import Streams

SLIDE = make_tissue(150, num_genes=30, image=None, seed=0)


@pytest.fixture(scope="module")
def model() -> ContextModel:
    """One model for all tests, which leave its weights as they are."""
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
    output = MaskedGenes(model, mask_ratio=1e-9, cell_ratio=0.0).loss(batch, seeded())
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


def view_of(task: MaskedGenes, batch, seed: int = 0):
    return task.view(batch, Streams(seeded(seed), batch.core.device))


def nats(x, mu, theta) -> np.ndarray:
    """Minus the log-probability of counts, by SciPy."""
    x, mu, theta = (np.asarray(v.detach(), dtype=float) for v in (x, mu, theta))
    return -nbinom.logpmf(x, theta, theta / (theta + mu))


def test_the_task_shows_the_model_nothing_of_what_it_asks_for(model):
    batch, task = batch_of(model), MaskedGenes(model)
    before = view_of(task, batch)
    changed = batch.clone()
    changed.x = torch.where(before.hidden, batch.x + 5, batch.x)
    after = view_of(task, changed)
    assert torch.equal(after.hidden, before.hidden)
    assert_close(after.out.cell, before.out.cell, rtol=0, atol=0)
    assert_close(after.out.levels[0].h, before.out.levels[0].h, rtol=0, atol=0)


@pytest.mark.parametrize(("genes", "cells"), [(0.2, 0.0), (0.7, 0.0), (0.2, 0.4)])
def test_as_many_genes_and_whole_cells_are_hidden_as_were_asked_for(model, genes, cells):
    fewer = Slide(SLIDE.adata[:, 6:].copy(), slide_id="fewer")
    view = view_of(MaskedGenes(model, mask_ratio=genes, cell_ratio=cells), batch_of(model, fewer))
    assert not (view.hidden & ~view.measured).any()
    whole = (view.hidden == view.measured).all(1)
    assert float(whole.float().mean()) == pytest.approx(cells, abs=0.1)
    assert float(view.hidden[~whole].sum() / view.measured[~whole].sum()) == pytest.approx(
        genes, abs=0.03
    )


def test_every_step_hides_others(model):
    task, batch = MaskedGenes(model), batch_of(model)
    first, second = (view_of(task, batch, seed).hidden for seed in (0, 1))
    assert (first != second).float().mean() > 0.3


def test_the_loss_of_cells_is_that_of_hidden_counts_of_core_cells_alone(model):
    batch, task = batch_of(model), MaskedGenes(model)
    batch.core[60:] = False
    view = view_of(task, batch)
    out = model.head(view.out.cell, batch.x.sum(1))
    nll = nats(batch.x, out.log_mu.exp(), out.log_theta.exp().expand_as(batch.x))
    scored = (view.hidden & batch.core.unsqueeze(1)).numpy()
    assert float(task.loss(batch, seeded()).parts["cell"]) == pytest.approx(
        nll[scored].mean(), 1e-4
    )


def test_the_loss_of_niches_is_that_of_the_sums_of_all_their_cells(model):
    batch, task = batch_of(model), MaskedGenes(model, niche_ratio=1.0)
    batch.core[60:] = False
    view = view_of(task, batch)
    level = view.out.levels[0]
    member, group = level.members[0].numpy(), level.members[1].numpy()
    total = torch.zeros(150, 30).index_add(0, torch.tensor(group), batch.x[member])[:60]
    out = model.niche_head(level.h[:60], total.sum(1))  # the niche around each core cell
    nll = nats(total, out.log_mu.exp(), out.log_theta.exp().expand_as(total))
    assert level.own[:60].tolist() == list(range(60))
    assert float(task.loss(batch, seeded()).parts["niche"]) == pytest.approx(nll.mean(), 1e-4)


def test_a_whole_hidden_cell_is_known_from_its_surroundings_alone(model):
    model = copy.deepcopy(model)
    with torch.no_grad():
        model.context_encoder.gate.fill_(1.0)
    batch = batch_of(model)
    task = MaskedGenes(model, cell_ratio=0.4)
    view = view_of(task, batch)
    cell = int((view.hidden == view.measured).all(1).nonzero()[0])
    changed = batch.clone()
    changed.x[cell] = changed.x[cell].roll(1)
    assert_close(view_of(task, changed).out.cell, view.out.cell, rtol=0, atol=0)


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
    with pytest.raises(ValueError, match="'cell_ratio' from 0 to below 1, got 1.0"):
        MaskedGenes(model, cell_ratio=1.0)
