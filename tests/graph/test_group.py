import pytest
import torch
from torch.testing import assert_close

from spatiagraph.graph import group_graph


def test_every_member_of_a_group_hears_every_member():
    group = torch.tensor([1, 0, 1, 3, 0, 1])  # group 2 is empty
    edges = group_graph(group)
    same = (group[:, None] == group[None]).t().nonzero().t()  # by target, then by source
    assert_close(edges.as_tensor(), same.flip(0))
    assert edges.sparse_size() == (6, 6)
    edges.validate()


def test_members_without_group_hear_themselves():
    assert group_graph(torch.tensor([-1, 0, -1])).tolist() == [[0, 1, 2], [0, 1, 2]]
    assert group_graph(torch.empty(0, dtype=torch.long)).shape == (2, 0)


@pytest.mark.parametrize("size", [8, 9, 15, 100])
def test_a_large_group_is_seen_in_part_by_each_and_in_whole_by_all(size):
    group = torch.arange(2 * size) % 2
    edges = group_graph(group, max_neighbors=8)
    edges.validate()
    source, target = edges.as_tensor()
    assert (group[source] == group[target]).all()
    assert (torch.bincount(target) == 8).all()
    assert (torch.bincount(source) == 8).all()
    assert (source == target).sum() == 2 * size
    assert edges.as_tensor().unique(dim=1).size(1) == edges.size(1)


def test_what_a_member_sees_of_a_large_group_is_evenly_spread():
    source, target = group_graph(torch.zeros(64, dtype=torch.long), max_neighbors=4).as_tensor()
    assert source[target == 5].tolist() == [5, 21, 37, 53]


def test_other_groups_change_nothing():
    one = group_graph(torch.zeros(10, dtype=torch.long), max_neighbors=4).as_tensor()
    both = group_graph(torch.tensor([0] * 10 + [1] * 7), max_neighbors=4).as_tensor()
    assert_close(both[:, both[1] < 10], one)


def test_max_neighbors_must_be_positive():
    with pytest.raises(ValueError, match="'max_neighbors' of at least 1, got 0"):
        group_graph(torch.zeros(3, dtype=torch.long), 0)
