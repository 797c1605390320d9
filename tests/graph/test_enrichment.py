"""Enrichment of groups in each other's neighbourhood."""

import numpy as np
import pytest
import torch
from anndata import AnnData
from numpy.testing import assert_allclose
from scipy.sparse import csr_matrix

from spatiagraph.graph import knn_graph, neighbor_enrichment
from spatiagraph.graph.edges import plain_edges


def halves(num=400):
    pos = np.random.default_rng(0).uniform(0, 100, (num, 2))
    return torch.from_numpy(pos), (pos[:, 0] > 50).astype(int)


def test_halves_of_the_tissue_are_neighbours_of_themselves():
    pos, side = halves()
    z = neighbor_enrichment(knn_graph(pos, 6), side)
    assert z[0, 0] > 5
    assert z[1, 1] > 5
    assert z[0, 1] < -5


def test_shuffled_labels_are_nobodys_neighbours():
    pos, side = halves()
    z = neighbor_enrichment(knn_graph(pos, 6), np.random.default_rng(1).permutation(side))
    assert np.abs(z).max() < 4


def test_the_statistic_is_that_of_squidpy():
    squidpy = pytest.importorskip("squidpy")
    pos, side = halves()
    groups = side + 2 * (pos[:, 1].numpy() > 70)
    edges = knn_graph(pos, 6)
    source, target = plain_edges(edges)
    adata = AnnData(np.zeros((400, 1), np.float32))
    adata.obs["group"] = [f"g{g}" for g in groups]
    adata.obs["group"] = adata.obs["group"].astype("category")
    place = (target.numpy(), source.numpy())
    adata.obsp["spatial_connectivities"] = csr_matrix((np.ones(len(source)), place), (400, 400))
    result = squidpy.gr.nhood_enrichment(
        adata, "group", n_perms=1000, seed=0, copy=True, show_progress_bar=False
    )
    ours = neighbor_enrichment(edges, groups, num_permutations=1000)
    assert_allclose(ours, np.asarray(result[0]).T, rtol=0.1, atol=0.6)  # of other shuffles


def test_many_groups_in_a_byte_are_counted_apart():
    pos, _ = halves()
    groups = (np.arange(400) % 40).astype(np.int8)
    edges = knn_graph(pos, 6)
    wide = neighbor_enrichment(edges, groups.astype(np.int64))
    assert_allclose(neighbor_enrichment(edges, groups), wide)


def test_cells_without_a_group_are_left_out():
    pos, side = halves()
    some = side.copy()
    some[::3] = -1
    known = np.flatnonzero(some >= 0)
    edges = knn_graph(pos, 6)
    source, target = plain_edges(edges)
    kept = torch.from_numpy((some[source] >= 0) & (some[target] >= 0))
    place = torch.full((400,), -1).scatter(0, torch.from_numpy(known), torch.arange(len(known)))
    inside = torch.stack([place[source[kept]], place[target[kept]]])
    assert_allclose(neighbor_enrichment(edges, some), neighbor_enrichment(inside, side[known]))
    with pytest.raises(ValueError, match="cells with a group"):
        neighbor_enrichment(edges, np.full(400, -1))
