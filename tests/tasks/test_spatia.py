"""Pre-training of SPATIA: each objective counts by its weight and teaches what it says."""

import copy
import functools
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from scipy.stats import nbinom
from torch.testing import assert_close

from spatiagraph.data import make_tissue
from spatiagraph.data.loader import TileLoader
from spatiagraph.models import Spatia
from spatiagraph.models.spatia import TINY
from spatiagraph.tasks import Annotation, Corruption, SpatiaPretraining, SpatiaWeights
from spatiagraph.tasks.spatia import SpatiaView
from spatiagraph.tasks.streams import Streams

SLIDE = make_tissue(200, num_genes=30, image="dapi", seed=0)
SMALL = replace(TINY, channels=16, gene_channels=16, gene_layers=1, num_tokens=20)
HIDING = Corruption(thin_rate=0.6, mask_ratio=0.2, hidden_ratio=0.4)
ALL = SpatiaWeights(
    label_adversary=0.1,
    source_adversary=0.1,
    token_source_adversary=0.1,
    cell_contrast=0.002,
    elastic_similarity=0.05,
    masked_cells=0.5,
    masked_niches=0.5,
)
OFF = {"label_adversary", "source_adversary", "token_source_adversary", "cell_contrast"}
OFF |= {"elastic_similarity", "masked_cells", "masked_niches"}  # by default
NAMES = list(asdict(ALL))


@functools.cache
def built(labels) -> Spatia:
    """The model of most tests; they train copies."""
    return Spatia.for_slides([SLIDE], SMALL, labels=list(labels))


def task(weights=ALL, labels=("cell_type", "region"), slide=SLIDE, **arguments):
    if slide is SLIDE and not arguments:
        model = copy.deepcopy(built(labels))
    else:
        model = Spatia.for_slides([slide], SMALL, labels=list(labels), **arguments)
    torch.manual_seed(0)
    return SpatiaPretraining(model, weights, corruption=HIDING, num_sources=2)


def batch_of(task, slide=SLIDE):
    (tile,) = TileLoader([task.model.recipe(slide)], slide.num_cells, task.model.num_hops)
    return tile


def generator():
    return torch.Generator().manual_seed(0)


def only(name: str, corruption: Corruption = HIDING, **arguments) -> SpatiaPretraining:
    """One objective, of half of the cells."""
    made = task(SpatiaWeights(**{k: float(k == name) for k in NAMES}), **arguments)
    made.corruption = corruption
    return made


def half_core(made: SpatiaPretraining, slide=SLIDE):
    batch = batch_of(made, slide)
    batch.core = torch.arange(batch.num_nodes) % 2 == 0
    return batch


def view_of(made: SpatiaPretraining, batch) -> SpatiaView:
    """What ``made.loss(batch, generator())`` looks at."""
    return made.view(batch, Streams(generator(), batch.core.device))


def nats(x, log_mu, log_theta, logit=None) -> np.ndarray:
    """Minus the log-probability of counts, zero-inflated or not, by SciPy."""
    x, mu, theta = (v.detach().double().numpy() for v in (x, log_mu.exp(), log_theta.exp()))
    chance = nbinom.pmf(x, theta, theta / (theta + mu))
    if logit is None:
        return -np.log(chance)
    lost = logit.sigmoid().detach().double().numpy()
    return -np.log(np.where(x == 0, lost, 0) + (1 - lost) * chance)


class Seen:
    """Arguments and output of the calls of a part."""

    def __init__(self, part: torch.nn.Module):
        self.calls: list[tuple] = []
        part.register_forward_hook(self, with_kwargs=True)

    def __call__(self, part, args, kwargs, output):
        self.calls.append((args, kwargs, output))


def test_the_depth_is_thinned_with_the_counts_and_full_counts_are_asked_for():
    made = only("denoise", Corruption(thin_rate=0.75, drop_genes=0.0))
    batch = half_core(made)
    read, head = Seen(made.model.cell_encoder.encoder.genes), Seen(made.model.heads.token_head)
    loss = float(made.loss(batch, generator()).parts["denoise"])
    (ids, values, depth), told, _ = read.calls[0]
    assert_close(depth, batch.depth * 0.25)
    full = batch.x.gather(1, ids)
    pad = torch.zeros_like(ids, dtype=torch.bool) if told["pad"] is None else told["pad"]
    full = full.masked_fill(pad, 0)
    assert (values <= full).all()
    assert 0.15 < values.sum() / full.sum() < 0.35
    (_, library, _), _, out = head.calls[0]
    assert_close(library, full.sum(1))
    scored = (batch.core.unsqueeze(1) & ~pad).numpy()
    finite = out.log_mu.masked_fill(pad, 0)
    assert loss == pytest.approx(nats(full, finite, out.log_theta, out.logit)[scored].mean(), 1e-4)


@pytest.mark.parametrize(("genes", "values"), [(0.2, 0.0), (0.6, 0.0), (0.2, 0.5)])
def test_as_many_genes_are_hidden_as_were_asked_for(genes, values):
    hiding = Corruption(mask_ratio=genes, value_ratio=values, drop_genes=0.0)
    made = only("denoise", hiding)
    batch = batch_of(made)
    read = Seen(made.model.cell_encoder.encoder.genes)
    view = view_of(made, batch)
    share = float(view.hidden_genes.float().mean())
    assert share == pytest.approx(genes + (1 - genes) * values, abs=0.03)
    (ids, _, _), told, _ = read.calls[0]
    unseen = view.hidden_genes.gather(1, ids)
    real = torch.ones_like(ids, dtype=torch.bool) if told["pad"] is None else ~told["pad"]
    assert_close(told["value_mask"][real], unseen[real])  # shown without a count, or not at all
    assert float(unseen[real].float().mean()) <= values


def test_counts_that_are_hidden_do_not_reach_the_embedding():
    made = only("expression", Corruption(value_ratio=0.4, thin_rate=0.0, drop_genes=0.3))
    with torch.no_grad():
        made.model.cell_encoder.gate.fill_(1.0)
    batch = batch_of(made)
    before = view_of(made, batch)
    assert before.hidden_genes.all(1).any()  # cells that lost their genes
    changed = batch.clone()
    changed.x = torch.where(before.hidden_genes, batch.x + 4, batch.x)
    after = view_of(made, changed)
    assert_close(after.z, before.z, rtol=0, atol=0)


def test_expression_is_scored_where_it_was_hidden_and_of_core_cells_alone():
    made = only("expression", replace(HIDING, drop_genes=0.3))
    batch = half_core(made)
    view = view_of(made, batch)
    whole = view.hidden.cells
    assert float(whole.float().mean()) == pytest.approx(0.4, abs=0.1)
    z = torch.where(whole.unsqueeze(1), view.context.context, view.context.cell)
    out = made.model.head(z, batch.x.sum(1))
    scored = (view.hidden_genes | whole.unsqueeze(1)) & batch.core.unsqueeze(1)
    assert 0.2 < scored[batch.core].float().mean() < 0.9
    expected = nats(batch.x, out.log_mu, out.log_theta.expand_as(batch.x))[scored.numpy()].mean()
    found = made.loss(batch, generator()).parts["expression"]
    assert float(found) == pytest.approx(expected, 1e-4)


def test_masked_cells_are_hidden_core_cells_known_from_what_is_around_them():
    made = only("masked_cells")
    batch = half_core(made)
    view = view_of(made, batch)
    hidden, context = view.hidden.cells, view.context
    assert float(hidden.float().mean()) == pytest.approx(HIDING.hidden_ratio, abs=0.1)
    level = context.levels[0]
    known = torch.cat([context.context, level.h[level.own]], 1)
    guess = next(o for o in made.objectives if o.name == "masked_cells").from_context(known)
    rows = hidden & batch.core
    expected = 1 - torch.cosine_similarity(guess[rows], view.z[rows]).mean()
    found = made.loss(batch, generator()).parts["masked_cells"]
    assert float(found) == pytest.approx(float(expected.detach()), 1e-4)
    alone = made.model.context(view.z, view.graph)  # nothing hidden
    assert not torch.allclose(alone.context[hidden], context.context[hidden])


def test_masked_niches_are_those_of_core_cells():
    made = only("masked_niches", replace(HIDING, hidden_ratio=0.7))
    batch = batch_of(made)
    batch.core = torch.arange(batch.num_nodes) < 60
    view = view_of(made, batch)
    level, hidden = view.context.levels[0], view.hidden.levels[0]
    core = torch.isin(torch.arange(len(hidden)), level.own[batch.core])
    assert 0 < (hidden & core).sum() < hidden.sum()
    rows = hidden & core
    guess = next(o for o in made.objectives if o.name == "masked_niches").from_context(level.h)
    expected = 1 - torch.cosine_similarity(guess[rows], level.pooled[rows]).mean()
    found = made.loss(batch, generator()).parts["masked_niches"]
    assert float(found) == pytest.approx(float(expected.detach()), 1e-4)


def scored_anew(view: SpatiaView, name: str, cells: torch.Tensor) -> None:
    """Give some cells other targets, where the forward passes of a view are made."""
    batch, rng = view.batch, torch.Generator().manual_seed(1)
    if name == "classification":
        batch.labels = torch.where(cells[:, None], (batch.labels + 1) % 2, batch.labels)
    elif name == "masked_image":
        other = torch.rand(batch.image.shape, generator=rng)
        batch.image = torch.where(cells[:, None, None, None], other, batch.image)
    elif name == "niche_profile":
        batch.x = torch.where(cells[:, None], batch.x + 5, batch.x)
    else:  # tokens are scored against one another, before or after fusion
        streams = view.streams
        for tokens in (streams.genes, streams.gene_tokens.tokens, streams.image_tokens.tokens):
            tokens[cells] = torch.randn(tokens[cells].shape, generator=rng)


@torch.no_grad()
@pytest.mark.parametrize(
    "name", ["masked_image", "cross_modal", "classification", "diversity", "niche_profile"]
)
def test_what_is_around_the_core_is_no_target(name):
    """Half of the niches are core: a profile is of all cells of its niche."""
    made = only(name, replace(HIDING, hidden_ratio=0.0))
    batch = batch_of(made)
    batch.core = view_of(made, batch).context.levels[0].own % 2 == 0
    assert 0.2 < batch.core.float().mean() < 0.8
    view = view_of(made, batch)
    objective = next(o for o in made.objectives if o.name == name)
    before = float(objective(view))
    assert before == pytest.approx(float(made.loss(batch, generator()).parts[name]))
    scored_anew(view, name, ~batch.core)
    assert float(objective(view)) == before
    scored_anew(view, name, batch.core)
    assert float(objective(view)) != pytest.approx(before, rel=1e-3)


def test_every_step_hides_other_genes_and_cells():
    made = only("masked_cells")
    batch = batch_of(made)
    views = [
        made.view(batch, Streams(torch.Generator().manual_seed(s), batch.core.device))
        for s in (0, 1)
    ]
    assert (views[0].hidden_genes != views[1].hidden_genes).float().mean() > 0.1
    assert (views[0].hidden.cells != views[1].hidden.cells).float().mean() > 0.2


@pytest.fixture(scope="module")
def switched_on():
    """All losses of a batch, and the batch."""
    on = task()
    batch = batch_of(on)
    return on.loss(batch, generator()), batch


@pytest.mark.parametrize("name", NAMES)
def test_a_switched_on_loss_adds_its_weight_times_its_value(name, switched_on):
    """SPATIA fact 23."""
    with_it, batch = switched_on
    on = task()
    assert set(with_it.parts) == set(NAMES)
    objective = next(o for o in on.objectives if o.name == name)
    objective.weight = 0.0
    without = on.loss(batch, generator())
    if name == "masked_niches":  # then none is hidden from the others either
        assert name not in without.parts
        total = sum(getattr(ALL, k) * v for k, v in with_it.parts.items())
        assert_close(with_it.loss, total)
        return
    weight = getattr(ALL, name)
    assert with_it.parts[name] > 0
    assert_close(with_it.loss - without.loss, weight * with_it.parts[name], rtol=1e-3, atol=1e-4)
    objective.weight = 3 * weight
    assert_close(
        on.loss(batch, generator()).loss - with_it.loss,
        2 * weight * with_it.parts[name],
        rtol=1e-3,
        atol=1e-4,
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_alone_has_a_gradient_and_learns(name):
    torch.manual_seed(0)
    only = task(SpatiaWeights(**{k: float(k == name) for k in NAMES}))
    batch = batch_of(only)
    first = only.loss(batch, generator())
    assert list(first.parts) == [name]
    reversed_ones = ("label_adversary", "source_adversary", "token_source_adversary")
    optimizer = torch.optim.Adam(only.parameters(), 3e-3)
    for _ in range(8):
        optimizer.zero_grad()
        loss = only.loss(batch, generator()).loss
        loss.backward()
        optimizer.step()
    assert loss.isfinite()
    if name not in reversed_ones:
        assert loss < first.loss


def test_the_same_generator_gives_the_same_loss():
    once = task()
    batch = batch_of(once)
    assert_close(once.loss(batch, generator()).loss, once.loss(batch, generator()).loss)
    other = once.loss(batch, torch.Generator().manual_seed(1)).loss
    assert not torch.isclose(other, once.loss(batch, generator()).loss)


def test_the_published_adversary_reads_the_mean_label_token():
    made = only("token_source_adversary")
    (objective,) = [o for o in made.objectives if o.name == "token_source_adversary"]
    seen = Seen(objective.adversary)
    batch = half_core(made)
    view = view_of(made, batch)
    made.loss(batch, generator())
    (h, source), _, _ = seen.calls[0]
    tokens = view.streams.genes[:, 2:4]  # after the global one and that of the depth
    assert_close(h, tokens.mean(1))
    assert (source[~batch.core] == -1).all()
    assert (source[batch.core] >= 0).all()


def test_a_cell_is_found_again_by_its_second_pass():
    """The contrast is that of the mean cell tokens of both passes, at temperature 0.5."""
    made = only("cell_contrast", replace(HIDING, drop_genes=0.3))
    batch = half_core(made)
    view = view_of(made, batch)
    rows = view.core_with_genes.nonzero().flatten()
    assert 0 < len(rows) < batch.num_nodes // 2
    first, second = (x[rows, :4].mean(1).double() for x in (view.streams.genes, view.second_pass))
    a, b = (x / x.norm(dim=1, keepdim=True) for x in (first, second))
    logits = (a @ b.T / 0.5).detach().numpy()
    chance = np.exp(logits - logits.max())
    own = np.diag(chance)
    expected = -(np.log(own / chance.sum(0)) + np.log(own / chance.sum(1))).mean() / 2
    found = made.loss(batch, generator()).parts["cell_contrast"]
    assert float(found) == pytest.approx(expected, 1e-4)


def test_unknown_labels_teach_nothing():
    """SPATIA fact 22."""
    weights = SpatiaWeights(**{k: float(k == "classification") for k in NAMES})
    unlabelled = task(weights)
    batch = batch_of(unlabelled)
    batch.labels = torch.full_like(batch.labels, -1)
    out = unlabelled.loss(batch, generator())
    assert out.loss == 0
    out.loss.backward()
    assert all(
        p.grad is None or (p.grad == 0).all()
        for p in unlabelled.model.heads.classifiers.parameters()
    )


def test_what_is_not_there_is_left_out():
    genes = make_tissue(150, num_genes=30, image=None, seed=0)
    parts = set(_parts(task(SpatiaWeights(), labels=(), slide=genes), genes))
    left_out = {"masked_image", "cross_modal", "classification", "diversity"}
    assert parts == set(NAMES) - left_out - OFF
    images = task(SpatiaWeights(), labels=(), genes=False)
    assert set(_parts(images, SLIDE)) == {
        "masked_image",
        "expression",
        "niche_profile",
    }


def _parts(task, slide):
    return task.loss(batch_of(task, slide), generator()).parts


def test_a_cached_batch_trains_context_alone():
    cached = task(SpatiaWeights())
    batch = batch_of(cached)
    batch.z = cached.model.encode(cached.model.cells(batch)).detach()
    del batch.image
    out = cached.loss(batch, generator())
    assert set(out.parts) == {"expression", "niche_profile"}
    out.loss.backward()
    assert all(p.grad is None for p in cached.model.cell_encoder.parameters())


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="0 or more, got less for denoise"):
        SpatiaWeights(denoise=-1.0)
    with pytest.raises(ValueError, match="'thin_rate' from 0 to below 1, got 1.0"):
        Corruption(thin_rate=1.0)
    with pytest.raises(ValueError, match="num_sources of 2 or more, got 0"):
        SpatiaPretraining(task().model, ALL)
    with pytest.raises(ValueError, match="labels with genes to hide"):
        SpatiaPretraining(task(SpatiaWeights(), labels=()).model, ALL, num_sources=2)
    with pytest.raises(ValueError, match="recipe reads labels"):
        Annotation(task(SpatiaWeights(), labels=()).model)


def test_annotation_learns_the_labels_it_is_given():
    model = task().model
    annotation = Annotation(model)
    batch = batch_of(annotation)
    optimizer = torch.optim.Adam(annotation.parameters(), 5e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        out = annotation.loss(batch)
        out.loss.backward()
        optimizer.step()
        losses.append(out.loss.item())
    assert set(out.parts) == {"cell_type", "region"}
    assert losses[-1] < 0.7 * losses[0]
