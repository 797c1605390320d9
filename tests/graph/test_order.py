"""The Hilbert curve visits every square once, step by step."""

import numpy as np
import pytest
import torch

from spatiagraph.graph import hilbert_order


@pytest.mark.parametrize("bits", [1, 2, 3, 5])
def test_curve_through_a_full_grid_steps_to_an_adjacent_square_each_time(bits):
    side = 2**bits
    pos = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)
    path = pos[hilbert_order(pos, bits=bits)]
    assert (np.abs(np.diff(path, axis=0)).sum(axis=1) == 1).all()


def test_order_is_a_permutation_and_can_be_undone():
    pos = torch.rand(500, 2, generator=torch.Generator().manual_seed(0))
    order = hilbert_order(pos)
    assert order.sort().values.tolist() == list(range(500))
    assert torch.equal(pos[order][order.argsort()], pos)


def test_cells_next_in_order_are_near():
    pos = np.random.default_rng(0).random((10_000, 2))
    step = np.linalg.norm(np.diff(pos[hilbert_order(pos)], axis=0), axis=1)
    assert np.median(step) < 0.015  # one in the mean spacing of 0.01; in random order 0.5
    assert np.quantile(step, 0.999) < 0.1


def test_few_cells_and_bad_bits():
    assert hilbert_order(np.empty((0, 2))).tolist() == []
    assert hilbert_order([[3, 3]]).tolist() == [0]
    assert hilbert_order([[3, 3], [3, 3]]).tolist() == [0, 1]
    with pytest.raises(ValueError, match="'bits' from 1 to 31, got 40"):
        hilbert_order([[0, 0]], bits=40)
