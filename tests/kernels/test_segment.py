"""Segment operations on three segments, the middle one empty."""

import pytest
import torch
from torch.testing import assert_close

from spatiagraph.kernels import (
    segment_max,
    segment_mean,
    segment_softmax,
    segment_sum,
)

PTR = torch.tensor([0, 2, 2, 6])


def rows(*shape, dtype=torch.float64):
    torch.manual_seed(0)
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize(
    ("op", "plain"),
    [
        (segment_sum, lambda part: part.sum(0)),
        (segment_mean, lambda part: part.mean(0)),
        (segment_max, lambda part: part.amax(0)),
    ],
)
def test_reduction_matches_a_loop_over_segments(op, plain):
    x = rows(6, 2, 3)
    loop = torch.stack([plain(x[:2]), torch.zeros(2, 3, dtype=x.dtype), plain(x[2:])])
    assert_close(op(x, PTR), loop)
    assert torch.autograd.gradcheck(op, (x, PTR))


def test_softmax_sums_to_one_in_each_segment():
    x = rows(6, 2)
    p = segment_softmax(x, PTR)
    assert_close(p, torch.cat([x[:2].softmax(0), x[2:].softmax(0)]))
    assert torch.autograd.gradcheck(segment_softmax, (x, PTR))


def test_max_gives_the_gradient_to_the_first_of_equal_entries():
    x = torch.tensor([1.0, 1.0, 0.0, 2.0, 2.0, 2.0], requires_grad=True)
    segment_max(x, PTR).sum().backward()
    assert_close(x.grad, torch.tensor([1.0, 0, 0, 1, 0, 0]))


def test_no_rows_and_no_segments():
    assert segment_sum(torch.zeros(0, 3), torch.tensor([0, 0])).tolist() == [[0.0, 0.0, 0.0]]
    assert segment_sum(torch.zeros(0, 3), torch.tensor([0])).shape == (0, 3)


def test_bounds_that_do_not_cover_the_rows_are_refused():
    with pytest.raises(ValueError, match="rise from 0 to the 6 rows of 'x', got 0 to 5"):
        segment_sum(rows(6), torch.tensor([0, 5]))
    with pytest.raises(ValueError, match="falling in between"):
        segment_sum(rows(6), torch.tensor([0, 4, 2, 6]))
