import numpy as np
import pytest
import torch

from spatiagraph.graph.ranges import ranges, repeat_each, row_of_each


@pytest.mark.parametrize("size", [[], [0, 0], [3], [2, 0, 5, 1, 0]])
def test_ranges_are_those_of_numpy_one_after_the_other(size):
    start = torch.arange(len(size)) * 7
    size = torch.tensor(size, dtype=torch.long)
    parts = [np.arange(s, s + n) for s, n in zip(start.tolist(), size.tolist(), strict=True)]
    assert ranges(start, size).tolist() == [int(i) for part in parts for i in part]
    assert repeat_each(start, size).tolist() == start.repeat_interleave(size).tolist()
    assert (start[row_of_each(size)] <= ranges(start, size)).all()
    assert torch.equal(torch.bincount(row_of_each(size), minlength=len(size)), size)
