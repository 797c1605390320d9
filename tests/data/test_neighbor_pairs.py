"""Pairs of neighbours and of others: who can be drawn, how often, and that draws repeat."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import spatiagraph as sg
from spatiagraph.data.loader import NeighborPairLoader, PairSource
from spatiagraph.data.recipe import Radius, Ranks, Recipe
from spatiagraph.graph import radius_graph


def source(pos, radius_um=30.0, **options):
    pos = torch.as_tensor(np.asarray(pos, dtype=float))
    return PairSource(torch.stack(list(radius_graph(pos, radius_um))), pos, **options)


def everything(pairs, epoch=0):
    return pairs.draw(np.arange(len(pairs)), epoch)


def test_four_cells_by_hand():
    """SpatialFormer fact F17: three neighbours of one cell, which has no other."""
    pairs = source([(0, 0), (20, 0), (40, 0), (45, 0)])
    assert len(pairs) == 8
    assert_array_equal(np.diff(pairs.ptr), [1, 3, 2, 2])
    found = {}
    for epoch in range(20):
        drawn = everything(pairs, epoch)
        for first, second, kind in zip(*drawn, strict=True):
            found.setdefault(int(kind), set()).add(frozenset((int(first), int(second))))
        # cell 1 has no other, cells 2 and 3 have one each: they keep one of two neighbours
        assert len(drawn.kind) == 2 * 3
        assert (drawn.kind == 0).sum() == 3
    assert found[1] == {frozenset((0, 2)), frozenset((0, 3))}
    assert found[0] <= {frozenset(p) for p in [(0, 1), (1, 2), (1, 3), (2, 3)]}


@pytest.mark.parametrize("negatives", ["uniform", "ring", "mixed"])
def test_others_are_as_many_as_neighbours_and_never_neighbours(negatives):
    """SpatialFormer fact F17: on a large slide."""
    rng = np.random.default_rng(0)
    pos = rng.uniform(0, 600, (1500, 2))
    pairs = source(pos, negatives=negatives)
    drawn = everything(pairs)
    query = np.repeat(pairs.query, len(drawn.first) // len(pairs))
    other = np.where(drawn.first == query, drawn.second, drawn.first)
    assert len(drawn.first) == len(pairs) * (3 if negatives == "mixed" else 2)
    assert (query != other).all()
    distance = np.linalg.norm(pos[query] - pos[other], axis=1)
    assert (distance[drawn.kind == 0] <= 30).all()
    assert (distance[drawn.kind == 1] > 30).all()
    near, far = distance[drawn.kind == 2], distance[drawn.kind == 3]
    assert ((near >= 80) & (near <= 150)).all()
    assert (far > 150).all()
    for kind in np.unique(drawn.kind):  # every cell as often as it has neighbours
        count = np.bincount(query[drawn.kind == kind], minlength=1500)
        assert_array_equal(count, np.diff(pairs.ptr))
        both = np.unique(np.stack([query, other])[:, drawn.kind == kind], axis=1)
        assert both.shape[1] == len(pairs)  # without replacement
    asked = query[drawn.kind != 0]
    assert len(np.unique(asked)) == (np.diff(pairs.ptr) > 0).sum()
    swapped = (drawn.first != query).mean()
    assert 0.47 < swapped < 0.53


def test_cells_of_two_slides_are_never_a_pair(slides):
    """SpatialFormer fact F17: of two slides whose places overlap."""
    made, prepared = slides
    for batch in NeighborPairLoader(prepared, 32, max_pairs=400, seed=1):
        own = made[batch.slide]
        assert batch.cell_index.max() < own.num_cells
        shift = own.pos[batch.cell_index] - batch.pos.numpy()
        assert_allclose(shift, np.broadcast_to(shift[0], shift.shape), atol=1e-3)


def test_uniform_others_are_uniform():
    pos = np.random.default_rng(0).uniform(0, 300, (200, 2))
    pairs = source(pos, 40.0)
    count = np.zeros((200, 200))
    for epoch in range(150):
        drawn = everything(pairs, epoch)
        apart = drawn.kind == 1
        np.add.at(count, (drawn.first[apart], drawn.second[apart]), 1)
    apart = np.linalg.norm(pos[:, None] - pos[None], axis=2) > 40
    assert (count[~apart] == 0).all()
    degree = np.diff(pairs.ptr)
    rate = degree / (199 - degree)
    expected = 150 * (rate[:, None] + rate[None]) / 2
    z = (count - expected)[apart] / np.sqrt(expected[apart] + 1e-9)
    assert abs(z.mean()) < 0.02
    assert 0.9 < z.std() < 1.1


def test_draws_follow_from_seed_epoch_and_number_alone():
    pos = np.random.default_rng(0).uniform(0, 300, (300, 2))
    pairs, other = source(pos, seed=1), source(pos, seed=2)
    whole = everything(pairs, 3)
    for a, b in zip(whole, pairs.draw(np.arange(100, 140), 3), strict=True):
        assert_array_equal(a[200:280], b)
    assert not np.array_equal(whole.second, everything(pairs, 4).second)
    assert not np.array_equal(whole.second, everything(other, 3).second)


@pytest.fixture(scope="module")
def slides():
    made = [
        sg.make_tissue(n, num_genes=30, image=None, seed=i, slide_id=f"{i}")
        for i, n in enumerate([250, 150])
    ]
    recipe = Recipe(sg.GenePanel.from_slides(made), graph=Radius(30), levels=(), tokens=Ranks())
    return made, [recipe(slide) for slide in made]


def test_batches_hold_the_cells_of_their_pairs(slides):
    made, prepared = slides
    prepared[0].core = torch.arange(250) < 200
    loader = NeighborPairLoader(prepared, 64, max_pairs=1500, seed=0)
    total, seen = 0, set()
    for batch in loader:
        slide = made[batch.slide]
        cells = batch.cell_index.numpy()
        if batch.slide == 0:
            assert cells.max() < 200
        assert batch.core.all()
        assert batch.gene_ids.size(0) == len(cells)
        assert_array_equal(
            batch.gene_ids.crow_indices().diff(), np.diff(slide.counts[cells].indptr)
        )
        a, b = slide.pos[cells[batch.pair_index.numpy()]]
        near = np.linalg.norm(a - b, axis=1) <= 30
        assert_array_equal(near, batch.pair_label.numpy() == 1)
        assert batch.pair_label.mean() == 0.5
        total += len(near)
        seen.add(batch.slide)
    assert seen == {0, 1}
    assert 1400 < total <= 1600
    prepared[0].core[:] = True


def test_cells_of_like_length_come_together(slides):
    prepared = slides[1]
    lengths = [np.random.default_rng(0).integers(1, 100, d.num_nodes) for d in prepared]
    loader = NeighborPairLoader(prepared, 32, lengths=lengths, seed=0)
    spread = [
        np.ptp(lengths[slide][loader.sources[slide].query[items]])
        for slide, _, items in loader.sampler
    ]
    assert np.median(spread) < 10


def test_epochs_differ_when_shuffled_and_repeat_otherwise(slides):
    prepared = slides[1]

    def pairs(loader, epoch):
        loader.sampler.set_epoch(epoch)
        return [(b.slide, b.cell_index[b.pair_index].tolist()) for b in loader]

    shuffled = NeighborPairLoader(prepared, 64, max_pairs=200, seed=0)
    assert pairs(shuffled, 0) == pairs(shuffled, 0)
    assert pairs(shuffled, 0) != pairs(shuffled, 1)
    fixed = NeighborPairLoader(prepared, 64, max_pairs=200, shuffle=False, seed=0)
    assert pairs(fixed, 0) == pairs(fixed, 1)


def test_slides_without_neighbours_and_other_rules_are_refused(slides):
    (data, _) = slides[1]
    alone = data.subgraph(torch.tensor([0]))
    with pytest.raises(ValueError, match="widen the radius"):
        NeighborPairLoader([alone])
    with pytest.raises(ValueError, match="uniform, ring, mixed, got 'near'"):
        NeighborPairLoader([data], negatives="near")
    with pytest.raises(ValueError, match="ring"):
        NeighborPairLoader([data], ring_um=(150.0, 80.0))
