import pytest
import torch
from torch.testing import assert_close
from torch_geometric import EdgeIndex

from spatiagraph.nn import NichePool, PyGPool, TopDown

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


@pytest.mark.parametrize("name", ["TopKPooling", "SAGPooling"])
def test_selecting_pools_keep_some_cells_as_niches(name):
    out = PyGPool(name, in_channels=8, ratio=0.5)(torch.randn(6, 8), edge_index=RING)
    assert out.h.shape == (3, 8)
    assert out.assignment.sort().values.tolist() == [-1, -1, -1, 0, 1, 2]


def test_dmon_pool_assigns_every_cell_and_has_a_loss():
    pool = PyGPool("DMoNPooling", channels=[8, 8], k=3)
    out = pool(torch.randn(6, 8), edge_index=RING)
    assert out.h.shape == (3, 8)
    assert out.assignment.min() >= 0
    assert out.loss.isfinite()


def test_pyg_pool_needs_edges_and_a_known_name():
    with pytest.raises(ValueError, match="Expected 'edge_index'"):
        PyGPool("TopKPooling", in_channels=8)(torch.randn(6, 8))
    with pytest.raises(ValueError, match="got 'ASAPooling'"):
        PyGPool("ASAPooling", in_channels=8)


def test_top_down_starts_closed_and_skips_cells_without_niche():
    layer, h, z = TopDown(8), torch.randn(6, 8), torch.randn(4, 8)
    niche = torch.tensor([0, 0, -1, 1, 3, 3])
    assert_close(layer(h, z, niche), h, rtol=0, atol=0)
    torch.nn.init.ones_(layer.gate)
    out = layer(h, z, niche)
    assert_close(out[2], h[2], rtol=0, atol=0)
    assert_close(out[3], h[3] + layer.linear(z[1]))
