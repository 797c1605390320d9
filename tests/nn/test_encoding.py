import torch
from torch.testing import assert_close

from spatiagraph.graph.encode import distance_rbf
from spatiagraph.nn import EdgeEncoding, PositionEncoding


def test_edges_carry_their_distance_and_the_direction_from_target_to_source():
    pos = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    edges = torch.tensor([[1, 0], [0, 1]])  # what cell 0 hears lies up and to the right of it
    encoding = EdgeEncoding(4, max_um=20.0, direction=True)
    found = encoding(pos, edges)
    assert encoding.out_channels == 6
    assert_close(found[:, 4:], torch.tensor([[0.6, 0.8], [-0.6, -0.8]]))
    assert_close(found[:, :4], distance_rbf(torch.tensor([5.0, 5.0]), 4, max_um=20.0))
    assert_close(EdgeEncoding(4, max_um=20.0)(pos, edges), found[:, :4])


def test_the_amplitude_of_positions_is_learned_from_where_it_starts():
    pos, center = torch.rand(5, 2) * 50, torch.zeros(1, 2)
    member = torch.tensor([0, 0, -1, 0, 0])
    plain, faint = PositionEncoding(8), PositionEncoding(8, amplitude=0.1)
    assert_close(faint(pos, center, member), 0.1 * plain(pos, center, member))
    assert not list(plain.parameters())
    (factor,) = faint.parameters()
    faint(pos, center, member).sum().backward()
    assert_close(factor.grad, plain(pos, center, member).sum())
