"""The assertions pass what has the property and catch what has not."""

import pytest
import torch
from torch_geometric import EdgeIndex
from torch_geometric.data import Data

from spatiagraph import testing
from spatiagraph.graph import knn_graph


def graph(num_cells=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pos = 100 * torch.rand(num_cells, 2, generator=generator, dtype=torch.float64)
    edges = knn_graph(pos, 3)
    return Data(
        x=torch.rand(num_cells, 4, generator=generator),
        pos=pos,
        edge_index=edges,
        edge_attr=torch.rand(edges.size(1), 1, generator=generator),
    )


def plain(edge_index):
    return edge_index.as_tensor() if isinstance(edge_index, EdgeIndex) else edge_index


def message(data):
    source, target = plain(data.edge_index)
    sent = data.edge_attr * data.x[source]
    return torch.zeros_like(data.x).index_add_(0, target, sent)


def lengths(data):
    source, target = plain(data.edge_index)
    distance = (data.pos[source] - data.pos[target]).norm(dim=1)
    return torch.zeros(data.num_nodes, dtype=distance.dtype).index_add_(0, target, distance)


def test_permutation_assertion_passes_message_passing_and_a_graph_level_sum():
    testing.assert_permutation_equivariant(lambda d: (message(d), d.x.sum(), None), graph())


def test_permutation_assertion_catches_a_dependence_on_row_number():
    with pytest.raises(AssertionError, match="Output 1 depends on the order"):
        testing.assert_permutation_equivariant(
            lambda d: (message(d), torch.arange(d.num_nodes)), graph()
        )


def test_rigid_assertion_passes_distances():
    testing.assert_rigid_invariant(lengths, graph())


@pytest.mark.parametrize("reflect", [False, True])
def test_rigid_assertion_catches_coordinates(reflect):
    with pytest.raises(AssertionError, match="depends on the position"):
        testing.assert_rigid_invariant(lambda d: d.pos, graph(), reflect=reflect)


def test_rigid_assertion_catches_handedness_only_when_it_mirrors():
    def area(data):
        a, b, c = data.pos[:3] - data.pos[0]
        return b[0] * c[1] - b[1] * c[0]

    testing.assert_rigid_invariant(area, graph(), reflect=False)
    with pytest.raises(AssertionError, match="depends on the position"):
        testing.assert_rigid_invariant(area, graph(), reflect=True)


def test_batch_assertion_passes_message_passing():
    testing.assert_batch_consistent(message, [graph(8, 1), graph(12, 2)])


def test_batch_assertion_catches_a_normalisation_over_the_batch():
    with pytest.raises(AssertionError, match="depends on the batch"):
        testing.assert_batch_consistent(lambda d: d.x - d.x.mean(0), [graph(8, 1), graph(9, 2)])


def test_requires_skips_what_is_not_installed_and_names_it():
    assert testing.requires("torch").args == (False,)
    mark = testing.requires("torch", "no_such_package")
    assert mark.args == (True,)
    assert mark.kwargs["reason"] == "needs no_such_package"
