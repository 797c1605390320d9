"""What SToFM's pre-training takes away and asks for, on sub-slices whose answers are known."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize
from torch.testing import assert_close

from spatiagraph import make_tissue
from spatiagraph.data.recipe import KNN
from spatiagraph.graph.pairs import NodeKind, known_pairs
from spatiagraph.losses import masked_cells_loss
from spatiagraph.models import SToFM, SubSlices
from spatiagraph.nn import Nodes, NodeStates
from spatiagraph.tasks import SToFMPretraining, Streams, SubSliceCorruption
from spatiagraph.tasks.stofm import Chosen, Distances, HiddenCells, SToFMView
from spatiagraph.tasks.stofm.corruption import (
    chosen,
    mean_distance,
    noise_scale,
    target_pairs,
    with_noise,
    without_cells,
)

PUBLISHED = SubSliceCorruption()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sub_slices_of(*numbers, num_virtual=3, num_neighbors=6, seed=0):
    """Sub-slices of so many cells in a box of 20 × 20, with CLS and virtual cells."""
    fields, start = [], 0
    for i, number in enumerate(numbers):
        num = 1 + num_virtual + number
        kind = torch.tensor([NodeKind.CLS] + [NodeKind.VIRTUAL] * num_virtual + [0] * number)
        pos = 20 * torch.rand(num, 2, generator=generator(seed + i))
        x = normalize(torch.randn(num, 8, generator=generator(seed + i)), dim=1)
        pairs = known_pairs(pos, kind, num_neighbors) + start
        fields.append((x, pos, kind, torch.full((num,), i), pairs))
        start += num
    *columns, pairs = zip(*fields, strict=True)
    return Nodes(*(torch.cat(c) for c in columns), torch.cat(pairs, 1))


@pytest.fixture(scope="module")
def slide():
    return make_tissue(400, num_genes=40, image=None, seed=0)


@pytest.fixture(scope="module")
def model(slide):
    return SToFM.for_slides([slide], slices=SubSlices(max_cells=150, num_neighbors=12))


def test_half_the_squared_error_of_unit_vectors_is_one_minus_their_cosine():
    """SToFM fact A8."""
    a, b = (normalize(torch.randn(5, 256, generator=generator(i)), dim=1) for i in range(2))
    squared = (a - b).square().sum(1).mean()
    assert_close(squared, 2 * masked_cells_loss(a, b))
    assert_close(masked_cells_loss(7 * a, a), torch.tensor(0.0), atol=1e-6, rtol=0)
    assert_close(masked_cells_loss(-a, a), torch.tensor(2.0))


def test_shares_of_each_sub_slice_are_rounded_down():
    """SToFM fact A9."""
    nodes = sub_slices_of(1000, 37, 8)
    core = nodes.kind == NodeKind.CELL
    got = chosen(core, nodes.batch, PUBLISHED, generator())
    replaced = torch.bincount(nodes.batch, got.replaced.float()).tolist()
    scored = torch.bincount(nodes.batch, got.scored.float()).tolist()
    assert replaced == [120, 4, 0]
    assert scored == [150, 5, 0]
    assert not bool((got.scored & ~core).any())
    assert not bool((got.replaced & ~got.scored).any())
    other = chosen(core, nodes.batch, PUBLISHED, generator(1))
    assert not torch.equal(other.replaced, got.replaced)
    context = core & (torch.arange(len(core)) < 500)  # cells that do not count are never chosen
    assert not bool((chosen(context, nodes.batch, PUBLISHED, generator()).scored & ~context).any())


def test_a_sub_slice_too_small_to_hide_a_cell_costs_nothing(model):
    """SToFM fact A9."""
    small = make_tissue(8, num_genes=40, image=None, seed=3)
    model = copy.deepcopy(model)
    model.recipe = replace(model.recipe, graph=KNN(4))
    (batch,) = model.batches([model.prepare(small, learn=True)])
    output = SToFMPretraining(model).loss(batch, generator())
    assert output.loss.item() == 0
    assert set(output.parts) == {"hidden_cells"}
    output.loss.backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    model.zero_grad()


def test_targets_are_known_pairs_of_cells_of_which_one_was_chosen():
    """SToFM fact A10."""
    nodes = sub_slices_of(60, 40)
    got = chosen(nodes.kind == NodeKind.CELL, nodes.batch, PUBLISHED, generator())
    i, j = target_pairs(nodes, got.scored)
    assert len(i) > 20
    assert bool((nodes.kind[i] == 0).all() and (nodes.kind[j] == 0).all())
    assert bool((i < j).all() and (nodes.batch[i] == nodes.batch[j]).all())
    assert bool((got.scored[i] | got.scored[j]).all())
    known = set(map(tuple, nodes.pair_index.T.tolist()))
    assert {*zip(i.tolist(), j.tolist(), strict=True)} <= known
    wanted = [
        (a, b) for a, b in known
        if nodes.kind[a] == nodes.kind[b] == 0 and (got.scored[a] or got.scored[b])
    ]  # fmt: skip
    assert len(wanted) == len(i)


def test_noise_is_five_mean_spacings():
    """SToFM fact A10."""
    pos = 20 * torch.rand(1001, 2, generator=generator())
    pos[1], pos[2], pos[0] = torch.zeros(2), torch.full((2,), 20.0), torch.full((2,), 1e3)
    kind = torch.tensor([NodeKind.CLS] + [NodeKind.CELL] * 1000)
    nodes = Nodes(pos, pos, kind, torch.zeros(1001).long(), torch.empty(2, 0).long())
    assert noise_scale(nodes, 5.0).item() == pytest.approx(5 * (400 / 1000) ** 0.5)
    assert 5 * (400 / 1000) ** 0.5 == pytest.approx(3.16228, abs=1e-5)
    line = nodes._replace(pos=pos * torch.tensor([1.0, 0.0]))
    assert noise_scale(line, 5.0).item() == 0  # collinear cells are not moved, and nothing breaks


@pytest.mark.parametrize("pattern", ["knn", "dense"])
def test_only_cells_that_were_moved_have_other_distances(model, pattern):
    """SToFM fact A10."""
    nodes = sub_slices_of(60, 40, num_neighbors=12)
    how = SubSliceCorruption(pattern=pattern)
    moved = chosen(nodes.kind == NodeKind.CELL, nodes.batch, how, generator()).replaced
    seen = with_noise(nodes, moved, how, generator(), model.slices)
    assert_close(seen.pos[~moved], nodes.pos[~moved], atol=0, rtol=0)
    assert bool(((seen.pos - nodes.pos).norm(dim=1)[moved] > 0).all())
    before, after = (set(map(tuple, n.pair_index.T.tolist())) for n in (nodes, seen))
    assert all(nodes.kind[a] != NodeKind.CLS for a, _ in after)
    assert all(nodes.batch[a] == nodes.batch[b] for a, b in after)
    degree = torch.bincount(torch.tensor(list(after)).flatten(), minlength=len(nodes.x)).float()
    cell = nodes.kind == 0
    if pattern == "dense":  # rows of cells that were not moved: the same but in moved columns
        kept = {p for p in after if not (moved[p[0]] or moved[p[1]])}
        assert kept == {p for p in before if not (moved[p[0]] or moved[p[1]])}
        size = torch.bincount(nodes.batch)[nodes.batch]
        assert bool((degree[moved] == (size - 2)[moved]).all())  # all but CLS and itself
    else:  # what is known of a cell does not tell whether it was moved
        rest = cell & ~moved
        assert degree[moved].mean() == pytest.approx(degree[rest].mean().item(), rel=0.15)


def test_without_noise_the_distances_are_there_to_be_read(model):
    """SToFM fact A10."""
    nodes = sub_slices_of(60, 40, num_neighbors=12)
    how = SubSliceCorruption(noise=0.0)
    got = chosen(nodes.kind == NodeKind.CELL, nodes.batch, how, generator())
    seen = with_noise(nodes, got.replaced, how, generator(), model.slices)
    assert_close(seen.pos, nodes.pos, atol=0, rtol=0)
    assert torch.equal(seen.pair_index, nodes.pair_index)
    pairs = target_pairs(nodes, got.scored)
    true = (nodes.pos[pairs[0]] - nodes.pos[pairs[1]]).norm(dim=1)
    oracle = lambda pair: pair[:, :1]  # noqa: E731
    read = type("Model", (), {"heads": type("Heads", (), {"distance": staticmethod(oracle)})})
    states = NodeStates(nodes.x, None, torch.cat([true, true]).unsqueeze(1).expand(-1, 4))
    view = SToFMView(read, nodes.x, Chosen(*[got.scored] * 2), pairs, true, true * 0 + 1, states)
    assert Distances()(view).item() == 0
    unit = torch.full_like(true, 2.0)
    off = view._replace(distance=2 * true + 3, unit=unit)
    assert Distances()(off).item() == pytest.approx((3 / 2) ** 2)


def test_unit_of_distances_is_their_mean_among_cells():
    nodes = sub_slices_of(30, 50)
    for b in range(2):
        i, j = nodes.pair_index
        kept = (nodes.batch[i] == b) & (nodes.kind[i] == 0) & (nodes.kind[j] == 0)
        mean = (nodes.pos[i] - nodes.pos[j]).norm(dim=1)[kept].mean()
        assert_close(mean_distance(nodes)[b], mean)


def test_virtual_cells_without_hidden_cells_are_means_of_the_others():
    nodes = sub_slices_of(6, 4, num_virtual=2)
    own = torch.tensor([-1, 0, 1, 0, 0, 1, 1, 1, 0] + [-1, 0, 1, 0, 1, 1, 1])
    size = torch.where(own >= 0, 10, 0)  # of ten cells in the whole slide
    hidden = torch.zeros(16, dtype=torch.bool)
    hidden[[3, 4, 12]] = True
    got = without_cells(nodes, hidden, own, size)
    assert_close(got[1], (10 * nodes.x[1] - nodes.x[3] - nodes.x[4]) / 8)
    assert_close(got[10], (10 * nodes.x[10] - nodes.x[12]) / 9)
    unchanged = torch.ones(16, dtype=torch.bool)
    unchanged[[1, 10]] = False
    assert_close(got[unchanged], nodes.x[unchanged])


def test_hidden_cells_are_replaced_and_nothing_else(model, slide):
    (batch, *_) = model.batches([model.prepare(slide, learn=True)], 400)
    seen = {}
    hook = model.encoder.register_forward_pre_hook(lambda _, args: seen.update(nodes=args[0]))
    for mask, value in (("learned", model.heads.mask.detach()), ("constant", torch.tensor(-100.0))):
        view = SToFMPretraining(model, corruption=SubSliceCorruption(mask=mask)).view(
            batch, Streams(generator(), torch.device("cpu"))
        )
        x, rows = seen["nodes"].x, view.cells.replaced
        assert_close(x[rows], value.expand_as(x[rows]), atol=0, rtol=0)
        assert_close(x[~rows], batch.z[~rows], atol=0, rtol=0)
        assert int(view.cells.scored.sum()) > int(rows.sum()) > 0
    hook.remove()


def test_every_weight_is_trained_and_terms_do_not_change_each_other(model, slide):
    (batch, *_) = model.batches([model.prepare(slide, learn=True)], 400)
    both = SToFMPretraining(model).loss(batch, generator())
    both.loss.backward()
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert not {n for n in trained if model.get_parameter(n).grad is None}
    assert not [n for n in trained if n.startswith("cell_encoder")]
    model.zero_grad()
    alone = SToFMPretraining(model, distance_weight=0.0).loss(batch, generator())
    assert_close(alone.parts["hidden_cells"], both.parts["hidden_cells"])
    assert isinstance(SToFMPretraining(model).objectives[0], HiddenCells)


@pytest.mark.parametrize("cells", ["ranks", "profile"])
def test_cells_are_trained_along_when_asked_to(slide, cells):
    model = SToFM.for_slides([slide], cells=cells, slices=SubSlices(max_cells=150))
    frozen = model.prepare(slide, learn=True)
    assert "x" not in frozen
    task = SToFMPretraining(model, joint=True)
    (batch, *_) = model.batches([model.prepare(slide, learn=True)], 400)
    task.loss(batch, generator()).loss.backward()
    assert all(p.grad is not None for p in model.cell_encoder.parameters())
    encoded = model.eval().cell_encoder(model.cells(batch))
    rows = batch.kind == NodeKind.CELL
    assert_close(encoded[rows], batch.z[rows], atol=1e-4, rtol=1e-3)
    SToFMPretraining(model)
    assert not model.trains_cells


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"replaced": 0.9, "kept": 0.2}, "below 1 together"),
        ({"mask": "zero"}, "learned"),
        ({"pattern": "all"}, "knn"),
        ({"noise": -1.0}, "noise"),
    ],
)
def test_wrong_corruptions_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SubSliceCorruption(**options)
