import pytest
import torch
from torch.testing import assert_close

from spatiagraph.losses import masked_mean

VALUES = torch.tensor([[1.0, 2.0], [3.0, 6.0]])


def test_the_mean_is_over_what_counts():
    assert_close(masked_mean(VALUES), torch.tensor(3.0))
    assert_close(
        masked_mean(VALUES, torch.tensor([[True, False], [True, True]])), VALUES.new_tensor(10 / 3)
    )


def test_a_mask_per_gene_counts_in_every_cell():
    assert_close(masked_mean(VALUES, torch.tensor([False, True])), torch.tensor(4.0))


def test_nothing_to_score_is_zero_with_zero_gradient():
    values = VALUES.clone().requires_grad_()
    loss = masked_mean(values, torch.zeros(2, 2, dtype=torch.bool))
    loss.backward()
    assert loss == 0
    assert_close(values.grad, torch.zeros(2, 2))


def test_what_does_not_count_may_be_nan():
    values = torch.tensor([1.0, torch.nan], requires_grad=True)
    loss = masked_mean(values, torch.tensor([True, False]))
    loss.backward()
    assert loss == 1
    assert_close(values.grad, torch.tensor([1.0, 0.0]))


def test_a_mask_of_numbers_is_refused():
    with pytest.raises(ValueError, match=r"boolean 'mask', got torch\.float32"):
        masked_mean(VALUES, torch.ones(2, 2))
