"""Counts of groups, summed over their members."""

import torch

from spatiagraph.nn.cell_graph import LevelEmbeddings
from spatiagraph.tasks.groups import group_totals


def test_counts_are_summed_exactly_under_autocast():
    own = torch.tensor([0, 0, 1, -1, 1])
    level = LevelEmbeddings(torch.zeros(2, 4), own, None)
    counts = torch.tensor([[1001.0], [1.0], [3.0], [99.0], [4.0]])
    with torch.autocast("cpu", torch.bfloat16):
        total, size, member = group_totals(level, torch.tensor([1, 0]), counts)
    assert total.tolist() == [[7.0], [1002.0]]  # bfloat16 has no 1002
    assert size.tolist() == [2, 2]
    assert own[member].tolist() == [1, 0]
