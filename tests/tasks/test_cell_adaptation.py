import math

import pytest
import torch
from torch.testing import assert_close

import spatiagraph as sg
from spatiagraph.data import GeneVocabulary
from spatiagraph.models import SToFM, SubSlices
from spatiagraph.tasks import CellAdaptation, mask_gene_tokens
from spatiagraph.tasks.cell_adaptation import AdaptationView, TwoViews


def test_fifteen_in_a_hundred_genes_are_selected_and_special_tokens_never():
    """80 % become ``<mask>``, 10 % any gene and 10 % stay."""
    vocabulary = GeneVocabulary([f"g{i}" for i in range(500)], meta=("brain",))
    genes = vocabulary.ranges["gene"]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(genes.start, genes.stop, (400, 500), generator=generator)
    special = [vocabulary.token(name) for name in ("<pad>", "brain", "<mask>", "<cls>")]
    ids[:, :4] = torch.tensor(special)
    got = mask_gene_tokens(ids, vocabulary, 0.15, generator)
    assert not bool(got.selected[:, :4].any())
    share = got.selected[:, 4:].float().mean().item()
    assert share == pytest.approx(0.15, abs=0.002)
    assert torch.equal(got.ids[~got.selected], ids[~got.selected])
    new, old = got.ids[got.selected], ids[got.selected]
    masked = new == vocabulary.token("<mask>")
    assert masked.float().mean().item() == pytest.approx(0.8, abs=0.01)
    assert (new == old).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert bool(((new >= genes.start) & (new < genes.stop))[~masked].all())
    assert len(new[~masked].unique()) > 450


def test_two_views_that_cannot_be_told_apart_cost_the_logarithm_of_their_number():
    z = torch.ones(6, 4) / 2
    view = AdaptationView(z, torch.zeros(6).long(), (z, z))
    assert TwoViews()(view).item() == pytest.approx(math.log(6), abs=1e-5)
    told = torch.eye(6)
    assert TwoViews()(view._replace(vectors=(told, told))).item() < 1e-6


@pytest.fixture(scope="module")
def slide():
    return sg.make_tissue(300, num_genes=40, image=None, seed=0)


def test_it_trains_the_encoder_and_better_than_chance(slide):
    model = SToFM.for_slides([slide], cells="ranks", slices=SubSlices(max_cells=150))
    task = CellAdaptation(model, contrast_weight=1.0, max_cells=64)
    before = {n: p.clone() for n, p in model.encoder.named_parameters()}
    result = sg.fit(
        model, [slide], task=task, max_epochs=6, lr=3e-3, accelerator="cpu", progress=False
    )
    history = result.history
    assert {"masked_tokens", "two_views"} <= set(history)
    assert history["masked_tokens"].iloc[-1] < history["masked_tokens"].iloc[0]
    assert history["two_views"].iloc[-1] < 0.7 * math.log(64)
    for name, parameter in model.encoder.named_parameters():
        assert_close(parameter, before[name], atol=0, rtol=0)


def test_every_weight_of_the_encoder_is_trained(slide):
    model = SToFM.for_slides([slide], cells="ranks", slices=SubSlices(max_cells=150))
    task = CellAdaptation(model, contrast_weight=1.0, max_cells=16)
    (batch, *_) = model.batches([model.prepare(slide, learn=True)], 400)
    task.loss(batch, torch.Generator().manual_seed(0)).loss.backward()
    assert all(p.grad is not None for p in model.cell_encoder.parameters())


@pytest.mark.parametrize("contrast_weight", [0.0, 1.0])
def test_a_batch_without_a_cell_to_adapt_to_costs_nothing(slide, contrast_weight):
    model = SToFM.for_slides([slide], cells="ranks", slices=SubSlices(max_cells=150))
    task = CellAdaptation(model, contrast_weight=contrast_weight, max_cells=16)
    (batch, *_) = model.batches([model.prepare(slide, learn=True)], 400)
    batch.core = torch.zeros_like(batch.core)
    found = task.loss(batch, torch.Generator().manual_seed(0))
    assert (found.loss.item(), found.n) == (0, 0)
    found.loss.backward()


def test_a_model_that_reads_profiles_has_nothing_to_adapt(slide):
    with pytest.raises(ValueError, match=r"RankEncoder.*got ProfileEncoder"):
        CellAdaptation(SToFM.for_slides([slide]))
