"""Pre-training of SPATIA's binned branch."""

import copy
import json
from dataclasses import asdict, replace

import pytest
import torch
from torch.testing import assert_close

from spatiagraph.data import GenePanel, make_tissue
from spatiagraph.data.loader import TileLoader
from spatiagraph.models import Spatia
from spatiagraph.models.spatia import SIZES, TINY, spatia, spatia_recipe
from spatiagraph.nn import BinnedGeneEncoder
from spatiagraph.tasks import BinnedPretraining, BinnedWeights, Corruption, SpatiaPretraining
from spatiagraph.tasks.catalog import pretraining
from spatiagraph.tasks.spatia import BinnedView
from spatiagraph.tasks.streams import Streams
from spatiagraph.training import fit

SLIDE = make_tissue(160, num_genes=40, image="dapi", seed=0)
SMALL = replace(TINY, channels=16, gene_channels=16, num_tokens=1200)
NAMES = list(asdict(BinnedWeights()))


def model_of(slide=SLIDE, labels=("cell_type",), **options):
    recipe = Spatia.default_recipe([slide])
    torch.manual_seed(0)
    genes = BinnedGeneEncoder(
        len(recipe.panel), 16, num_layers=1, heads=2, hidden_channels=16, dropout=0.0
    )
    labels = list(labels)
    return Spatia.for_slides([slide], SMALL, recipe=recipe, genes=genes, labels=labels, **options)


def batch_of(model, slide=SLIDE):
    (tile,) = TileLoader([model.recipe(slide)], slide.num_cells, model.num_hops)
    tile.core = torch.arange(tile.num_nodes) % 2 == 0
    return tile


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def view_of(task, batch, seed=0) -> BinnedView:
    view = task.view(batch, Streams(generator(seed), batch.core.device))
    assert view.streams is not None
    return view


@pytest.fixture(scope="module")
def built():
    """The model of most tests; they train copies."""
    return model_of()


@pytest.fixture(scope="module")
def task(built):
    return BinnedPretraining(copy.deepcopy(built))


@pytest.fixture(scope="module")
def batch(task):
    return batch_of(task.model)


def test_a_step_generates_one_of_the_published_shares_and_hides_some_of_the_rest(task, batch):
    shares = []
    for seed in range(12):
        view = view_of(task, batch, seed)
        real = ~view.streams.sampled.pad
        assert not (view.named & view.masked).any()
        assert not ((view.named | view.masked) & ~real).any()
        shares.append(float(view.named[real].float().mean()))
        rest = real & ~view.named
        assert float(view.masked[rest].float().mean()) == pytest.approx(0.15, abs=0.04)
    nearest = [min((0.25, 0.5, 0.75), key=lambda r, s=share: abs(r - s)) for share in shares]
    assert set(nearest) == {0.25, 0.5, 0.75}
    assert shares == pytest.approx(nearest, abs=0.03)


def test_what_is_hidden_does_not_reach_the_tokens(task, batch):
    """Bins of named and masked genes are targets alone: the encoder reads none of them."""
    view = view_of(task, batch)
    seen = []
    handle = task.model.cell_encoder.genes.value.register_forward_pre_hook(
        lambda part, args: seen.append(args[0].squeeze(-1))
    )
    view = task.view(batch, Streams(generator(), batch.core.device))
    assert view.streams is not None
    handle.remove()
    values = next(x for x in seen if x.shape == view.named.shape)
    kept = ~view.named & ~view.masked & ~view.streams.sampled.pad
    assert_close(values[kept], view.bins[kept])
    assert (values[view.masked] == -1).all()
    assert (view.bins[view.named | view.masked] >= 1).all()


def by_hand(name, task, view):
    """Each term outside of the task."""
    stream, sampled = view.streams.genes, view.streams.sampled
    cells = view.core_with_genes.unsqueeze(1)
    objective = {o.name: o for o in task.objectives}[name]
    if name in ("generated", "masked"):
        asked = (view.named if name == "generated" else view.masked) & cells
        found = objective.decoder(stream[:, 1:]).squeeze(-1)
        return (found - view.bins)[asked].square().mean()
    if name == "cell_bins":
        query = objective.of_gene(task.model.cell_encoder.genes.embed_genes(sampled.ids)).sigmoid()
        found = torch.einsum("nld,nd->nl", query, objective.of_cell(stream[:, 0]))
        return (found - view.bins)[~sampled.pad & cells].square().mean()
    logits = task.model.heads.classifiers[0](stream[:, 0])
    rows = view.core_with_genes.nonzero().flatten()
    labels = view.batch.labels[rows, 0]
    return -logits.log_softmax(1)[rows, labels].mean()


@pytest.mark.parametrize("name", ["generated", "masked", "cell_bins", "labels"])
def test_terms_are_what_they_say(name, task, batch):
    found = task.loss(batch, generator())
    view = view_of(task, batch)
    assert 0 < view.core_with_genes.sum() < batch.core.sum()
    assert_close(found.parts[name], by_hand(name, task, view).detach())
    assert_close(found.loss, sum(found.parts.values()))


@pytest.mark.parametrize("name", NAMES)
def test_every_term_alone_learns(name, built):
    weights = BinnedWeights(**{k: float(k == name) for k in NAMES})
    alone = BinnedPretraining(copy.deepcopy(built), weights)
    batch = batch_of(alone.model)
    first = alone.loss(batch, generator())
    assert list(first.parts) == [name]
    optimizer = torch.optim.Adam(alone.parameters(), 3e-3)
    for _ in range(8):
        optimizer.zero_grad()
        loss = alone.loss(batch, generator()).loss
        loss.backward()
        optimizer.step()
    assert loss < first.loss


def test_both_errors_of_bins_share_one_mixture_of_four(task):
    first, second = (o.decoder for o in task.objectives if o.name in ("generated", "masked"))
    assert first is second
    assert (len(first.experts), first.top_k) == (4, 2)


def test_a_saved_model_embeds_alike_and_starts_at_the_scale_of_the_genes(tmp_path, task, batch):
    model = task.model.eval()
    assert model.cell_encoder.genes.gene_scale.std() > 0
    with torch.no_grad():
        first, again = (model.encode(model.cells(batch)) for _ in range(2))
    assert torch.equal(first, again)  # SPATIA fact 10
    model.save_pretrained(tmp_path / "m")
    back = Spatia.from_pretrained(tmp_path / "m")
    with torch.no_grad():
        assert_close(back.encode(back.cells(batch)), first, rtol=0, atol=0)
    task.model.train()


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_binned_branch_reads_the_published_number_of_genes_in_every_size(size):
    """SPATIA: 1,200 genes of each cell, whatever branch A reads in that size."""
    panel = GenePanel([f"G{i}" for i in range(1500)])
    genes = BinnedGeneEncoder(1500, 16, num_layers=1, heads=2, hidden_channels=16)
    sizes = replace(size, channels=16, gene_channels=16)
    encoder = spatia(spatia_recipe(panel, image=False), sizes, genes=genes, start=False).eval()
    assert encoder.cell_encoder.sample(torch.ones(2, 1500), None).ids.shape == (2, 1200)
    few = BinnedGeneEncoder(1500, 16, num_layers=1, heads=2, hidden_channels=16, num_tokens=30)
    encoder = spatia(spatia_recipe(panel, image=False), sizes, genes=few, start=False).eval()
    assert encoder.cell_encoder.sample(torch.ones(2, 1500), None).ids.shape == (2, 30)


def test_a_binned_model_saved_with_another_number_of_genes_keeps_it(tmp_path, built):
    """Before the encoder had a number, that of the size stood in the encoder of cells."""
    built.save_pretrained(tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    config = json.loads(path.read_text())
    del config["hash"]
    cells = config["model"]["args"]["cell_encoder"]["args"]["encoder"]["args"]
    del cells["genes"]["args"]["num_tokens"]
    cells["num_tokens"] = 7
    path.write_text(json.dumps(config))
    assert Spatia.from_pretrained(tmp_path / "m").cell_encoder.encoder.num_tokens == 7


def test_fit_pre_trains_bins_as_bins_and_context_on_cached_cells(built):
    task = pretraining(built)
    assert type(task) is BinnedPretraining
    assert type(pretraining(built, cached_cells=True)) is SpatiaPretraining
    assert type(pretraining(Spatia.for_slides([SLIDE], SMALL))) is SpatiaPretraining
    model, run = copy.deepcopy(built), {"max_epochs": 1, "accelerator": "cpu", "progress": False}
    assert fit(model, [SLIDE], **run).record["task"]["class"] == "BinnedPretraining"
    again = fit(model, [SLIDE], cache_cells=True, **run)
    assert again.record["task"]["class"] == "SpatiaPretraining"


def test_what_is_not_there_is_left_out():
    genes = make_tissue(120, num_genes=40, image=None, seed=0)
    model = model_of(genes, labels=())
    found = BinnedPretraining(model).loss(batch_of(model, genes), generator())
    assert set(found.parts) == {"generated", "masked", "cell_bins"}


def test_wrong_settings_are_refused(built, batch):
    counts = Spatia.for_slides([SLIDE], replace(SMALL, gene_layers=1))
    with pytest.raises(ValueError, match="a BinnedGeneEncoder, got one of GeneTokenEncoder"):
        BinnedPretraining(counts)
    with pytest.raises(ValueError, match="'ratios' between 0 and 1"):
        BinnedPretraining(built, ratios=(1.0,))
    with pytest.raises(ValueError, match="less for masked"):
        BinnedWeights(masked=-1)
    assert SpatiaPretraining(copy.deepcopy(built)).loss(batch, generator()).loss.isfinite()
    assert Corruption().value_ratio == 0.15
