import pytest
import torch
from torch.testing import assert_close

from spatiagraph.losses import condition_contrast_loss, wrong_transitions


def test_nothing_to_learn_where_the_right_condition_wins_by_the_margin():
    """SPATIA fact 37."""
    right = torch.tensor([1.0, 3.0], requires_grad=True)  # margin 0.1 × mean 2
    loss = condition_contrast_loss(right, torch.tensor([1.21, 3.21]))
    loss.backward()
    assert loss == 0
    assert_close(right.grad, torch.zeros(2))


def test_known_answer_and_gradients():
    right = torch.tensor([1.0, 3.0, 2.0], requires_grad=True)
    wrong = torch.tensor([1.0, 9.0, 1.5], requires_grad=True)
    loss = condition_contrast_loss(right, wrong)
    assert_close(loss, torch.tensor((0.2 + 0 + 0.7) / 3))
    loss.backward()
    assert_close(right.grad, torch.tensor([1.0, 0.0, 1.0]) / 3)  # the mean passes none on
    assert_close(wrong.grad, -right.grad)


def test_margin_is_relative_to_the_error():
    right, wrong = torch.rand(2, 9, generator=torch.manual_seed(0))
    loss = condition_contrast_loss(right, wrong)
    assert_close(condition_contrast_loss(50 * right, 50 * wrong), 50 * loss)


@pytest.mark.parametrize("num", [2, 3, 5])
def test_wrong_transitions_are_any_but_the_own(num):
    """SPATIA fact 37."""
    own = torch.arange(num).repeat(2000)
    wrong = wrong_transitions(own, num, generator=torch.manual_seed(0))
    often = torch.stack([wrong[own == k].bincount(minlength=num) for k in range(num)]) / 2000
    assert (often.diagonal() == 0).all()
    others = often[~torch.eye(num, dtype=torch.bool)]
    assert_close(others, torch.full_like(others, 1 / (num - 1)), atol=0.05, rtol=0)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="at least 2 transitions to confuse, got 1"):
        wrong_transitions(torch.zeros(3, dtype=torch.long), 1)
    with pytest.raises(ValueError, match=r"got \[3\] and \[2\]"):
        condition_contrast_loss(torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="at least 0, got -1"):
        condition_contrast_loss(torch.ones(3), torch.ones(3), margin=-1)
