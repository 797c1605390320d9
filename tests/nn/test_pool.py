import warnings

import pytest
import torch
from torch.testing import assert_close
from torch_geometric import EdgeIndex

from spatiagraph._config import from_config, to_config
from spatiagraph.nn import MeanPool, NichePool, PyGPool, TopDown
from spatiagraph.nn.protocols import Pooling

NICHE = torch.tensor([0, 0, 1, 1, 1, 3])  # niche 2 is empty
RING = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])


def trained(channels: int = 8) -> NichePool:
    torch.manual_seed(0)
    pool = NichePool(channels, heads=2, hidden_channels=16)
    for parameter in pool.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return pool


def test_niche_pool_starts_as_the_mean():
    h = torch.randn(6, 8)
    mean = torch.stack(
        [h[NICHE == m].mean(0) if (NICHE == m).any() else h[0] * 0 for m in range(4)]
    )
    assert_close(NichePool(8)(h, NICHE).h, mean)


@pytest.mark.parametrize("index", [NICHE, torch.stack([torch.arange(6), NICHE]).flip(1)])
def test_a_mean_of_members_is_what_attention_starts_as(index):
    """Whether groups are given by member or as edges, sorted or not; an empty one is zero."""
    h = torch.randn(6, 8, requires_grad=True)
    out = MeanPool()(h, index, 4)
    assert_close(out.h, NichePool(8)(h, NICHE).h)
    assert (out.assignment is None) == (index.dim() == 2)
    out.h[1].sum().backward()
    assert_close(h.grad, (NICHE == 1).float()[:, None].expand(6, 8) / 3)
    assert not [*MeanPool().parameters()]


def test_niche_pool_matches_a_loop_over_niches_and_heads():
    pool, h = trained(), torch.randn(6, 8)
    pool.mlp = None
    key = pool.key(pool.norm(h)).view(6, 2, 4)
    for m in (0, 1, 3):
        rows = NICHE == m
        weight = ((pool.query * key[rows]).sum(-1) / 2.0).softmax(0)  # √4
        expected = (weight.unsqueeze(-1) * h[rows].view(-1, 2, 4)).sum(0).flatten()
        assert_close(pool(h, NICHE).h[m], expected)


def test_niche_pool_does_not_depend_on_cell_order():
    pool, h, perm = trained(), torch.randn(6, 8), torch.randperm(6)
    assert_close(pool(h[perm], NICHE[perm]).h, pool(h, NICHE).h)


def test_niches_do_not_influence_each_other():
    """SPATIA fact 18."""
    pool, h = trained(), torch.randn(6, 8, requires_grad=True)
    pool(h, NICHE).h[1].sum().backward()
    assert_close(h.grad[NICHE != 1], torch.zeros(3, 8), rtol=0, atol=0)
    assert h.grad[NICHE == 1].abs().sum() > 0


def test_niche_pool_takes_overlapping_niches_as_edges():
    pool, h = trained(), torch.randn(6, 8)
    edges = EdgeIndex(
        torch.tensor([[0, 1, 2, 1, 2, 3], [0, 0, 0, 1, 1, 1]]), sparse_size=(6, 2), sort_order="col"
    )
    out = pool(h, edges, 2)
    assert out.assignment is None
    assert_close(out.h[0], pool(h[:3], torch.zeros(3, dtype=torch.long)).h[0])


def test_niche_pool_leaves_out_cells_without_niche():
    pool, h = trained(), torch.randn(6, 8)
    niche = torch.tensor([0, 0, -1, 1, 1, -1])
    keep = niche >= 0
    assert_close(pool(h, niche).h, pool(h[keep], niche[keep]).h)


def test_niche_pool_rejects_a_cell_without_entry():
    with pytest.raises(ValueError, match="6 for 5"):
        NichePool(8)(torch.randn(5, 8), NICHE)


LEARNED = {
    "TopKPooling": {"in_channels": 8},
    "SAGPooling": {"in_channels": 8},
    "ASAPooling": {"in_channels": 8},
    "EdgePooling": {"in_channels": 8},
    "ClusterPooling": {"in_channels": 8, "edge_score_method": "log_softmax", "threshold": -2.0},
    "DMoNPooling": {"channels": [8, 8], "k": 3},
    "dense_mincut_pool": {"channels": 8, "k": 3},
    "dense_diff_pool": {"channels": [8, 16], "k": 3, "normalize": False},
    "MemPooling": {"in_channels": 8, "out_channels": 8, "heads": 2, "num_clusters": 3},
}
FOUR_RING = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])


def learned(name: str) -> PyGPool:
    torch.manual_seed(0)
    return PyGPool(name, **LEARNED[name]).eval()


@pytest.mark.parametrize("name", LEARNED)
def test_learned_groups_of_two_slides_are_those_of_each_alone(name):
    pool, one, two = learned(name), torch.randn(6, 8), torch.randn(4, 8)
    slide = torch.tensor([7] * 6 + [3] * 4)  # neither in order nor numbered without gaps
    edges = torch.cat([RING, FOUR_RING + 6], 1)
    both = pool(torch.cat([one, two]), edge_index=edges, batch=slide)
    alone = {7: pool(one, edge_index=RING), 3: pool(two, edge_index=FOUR_RING)}
    for number, rows in ((7, slice(0, 6)), (3, slice(6, 10))):
        groups = both.batch == number
        assert_close(both.h[groups], alone[number].h)
        own = both.assignment[rows]
        assert_close(torch.where(own < 0, own, own - groups.nonzero()[0]), alone[number].assignment)
    losses = [out.loss for out in alone.values() if out.loss is not None]
    if losses:
        assert_close(both.loss, torch.stack(losses).mean())


@pytest.mark.parametrize("name", LEARNED)
def test_a_learned_group_has_members_and_gradients_reach_the_pooling(name):
    pool, h = learned(name), torch.randn(6, 8)
    out = pool(h, edge_index=RING)
    assert pool.assigns
    assert out.assignment.shape == (6,)
    assert out.assignment.max() < len(out.h) == len(out.batch)
    (out.h.square().sum() + (0 if out.loss is None else out.loss)).backward()
    parameters = dict(pool.named_parameters())
    if name == "ASAPooling":
        parameters.pop("pool.select.weight")  # of one number, of which only the sign counts
    assert not [n for n, p in parameters.items() if p.grad is None or not p.grad.isfinite().all()]


@pytest.mark.parametrize("name", LEARNED)
def test_learned_pools_take_cells_without_edges_or_slide_and_no_cell_at_all(name):
    pool, h, none = learned(name), torch.randn(6, 8), RING[:, :0]
    out = pool(h, edge_index=none)
    assert out.h.isfinite().all()
    assert out.loss is None or out.loss.isfinite()
    half = pool(torch.cat([h, h]), edge_index=RING, batch=torch.arange(12) // 6)  # one has edges
    whole = pool(h, edge_index=RING)
    if name in ("DMoNPooling", "dense_mincut_pool", "dense_diff_pool"):
        assert_close(half.loss, whole.loss / 2)
    slide = torch.tensor([0, 0, 0, -1, 0, 0])
    part = pool(h, edge_index=RING, batch=slide)
    assert part.assignment[3] == -1
    assert (part.batch == 0).all()
    assert pool(h[:0], edge_index=none).h.shape == (0, 8)


@pytest.mark.parametrize("name", ["TopKPooling", "SAGPooling"])
def test_selecting_pools_keep_some_cells_as_niches(name):
    out = learned(name)(torch.randn(6, 8), edge_index=RING)
    assert out.h.shape == (3, 8)
    assert out.assignment.sort().values.tolist() == [-1, -1, -1, 0, 1, 2]


def test_top_k_pool_numbers_each_kept_cell_as_its_row():
    pool, h = learned("TopKPooling"), torch.randn(6, 8)
    out = pool(h, edge_index=RING)
    score = (h @ pool.pool.select.weight.squeeze() / pool.pool.select.weight.norm()).tanh()
    kept = out.assignment >= 0
    assert_close(out.h[out.assignment[kept]], (h * score[:, None])[kept])


def test_asa_pool_gives_neighbours_to_the_fittest_cell_that_stays():
    pool, h = learned("ASAPooling"), torch.randn(6, 8)
    edges = torch.cat([RING, RING.flip(0)], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        *_, kept = pool.pool(h, edges)  # by fitness
    kept = kept.tolist()
    expected = []
    for cell in range(6):
        near = [kept.index(j) for j in edges[1, edges[0] == cell].tolist() if j in kept]
        expected.append(kept.index(cell) if cell in kept else min(near, default=-1))
    assert pool(h, edge_index=edges).assignment.tolist() == expected


@pytest.mark.parametrize("name", ["DMoNPooling", "dense_mincut_pool", "dense_diff_pool"])
def test_dense_pools_assign_every_cell_and_have_a_loss(name):
    out = learned(name)(torch.randn(6, 8), edge_index=RING)
    assert out.h.shape == (3, 8)
    assert out.assignment.min() >= 0
    assert out.loss.isfinite()


def test_min_cut_loss_is_that_of_two_cliques():
    """Two cliques, each scored for a cluster of its own: nothing is cut, clusters are balanced."""
    pool = PyGPool("dense_mincut_pool", channels=2, k=2)
    lin = pool.pool.mlp.lins[0]
    torch.nn.init.zeros_(lin.bias)
    lin.weight.data = 100 * torch.eye(2)
    clique = torch.tensor([[0, 0, 1, 1, 2, 2], [1, 2, 0, 2, 0, 1]])
    h = torch.eye(2).repeat_interleave(3, 0)
    out = pool(h, edge_index=torch.cat([clique, clique + 3], 1))
    assert_close(out.loss, torch.tensor(-1.0))
    assert out.assignment.tolist() == [0, 0, 0, 1, 1, 1]
    assert_close(out.h, 3 * torch.eye(2))


def test_pyg_pool_needs_edges_a_slide_per_cell_and_a_known_name():
    with pytest.raises(ValueError, match="Expected 'edge_index'"):
        learned("TopKPooling")(torch.randn(6, 8))
    with pytest.raises(ValueError, match="one slide per member, got 5 for 6"):
        learned("TopKPooling")(torch.randn(6, 8), edge_index=RING, batch=torch.zeros(5).long())
    with pytest.raises(ValueError, match="Expected one of TopKPooling.*got 'PANPooling'"):
        PyGPool("PANPooling", in_channels=8)


@pytest.mark.parametrize("name", LEARNED)
def test_a_learned_pool_is_described_and_built_again(name):
    again = from_config(to_config(learned(name)))
    again.load_state_dict(learned(name).state_dict())
    h = torch.randn(6, 8)
    assert_close(again.eval()(h, edge_index=RING).h, learned(name)(h, edge_index=RING).h)


def test_planted_and_learned_pools_say_whether_they_assign():
    assert isinstance(NichePool(8), Pooling)
    assert not NichePool(8).assigns
    assert isinstance(learned("DMoNPooling"), Pooling)
    assert not isinstance(torch.nn.Linear(8, 8), Pooling)


def test_top_down_starts_closed_and_skips_cells_without_niche():
    layer, h, z = TopDown(8), torch.randn(6, 8), torch.randn(4, 8)
    niche = torch.tensor([0, 0, -1, 1, 3, 3])
    assert_close(layer(h, z, niche), h, rtol=0, atol=0)
    torch.nn.init.ones_(layer.gate)
    out = layer(h, z, niche)
    assert_close(out[2], h[2], rtol=0, atol=0)
    assert_close(out[3], h[3] + layer.linear(z[1]))
