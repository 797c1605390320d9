import pytest
import torch
from torch import nn
from torch.testing import assert_close

from spatiagraph.losses import confidence_weights, velocity_error


def velocities(num=4, dtype=torch.float64):
    torch.manual_seed(0)
    return torch.randn(2, num, 3, 5, 5, dtype=dtype).unbind()


@pytest.mark.parametrize(
    ("gamma", "known"),
    [(0, [1, 1, 1, 1]), (1, [0.5, 1, 2, 0.5]), (2, [0.1818, 0.7273, 2.9091, 0.1818])],
)
def test_weights_of_four_pairs(gamma, known):
    """SPATIA fact 28."""
    weight = confidence_weights(torch.tensor([0.1, 0.2, 0.4, 0.1]), gamma=gamma)
    assert_close(weight, torch.tensor(known, dtype=torch.float), atol=5e-5, rtol=0)
    assert_close(weight.mean(), torch.tensor(1.0))


def test_weights_by_the_mean_of_the_training_set_do_not_depend_on_the_batch():
    """SPATIA fact 28."""
    confidence = torch.rand(12, generator=torch.manual_seed(0))
    whole = confidence_weights(confidence, gamma=2)
    mean = confidence.square().mean()
    assert_close(confidence_weights(confidence[:1], gamma=2, mean=mean), whole[:1])
    assert_close(confidence_weights(confidence[:1], gamma=2), torch.ones(1))


def test_error_of_each_sample_is_its_own_and_in_single_precision():
    prediction, target = velocities()
    error = velocity_error(prediction, target)
    by_hand = [nn.functional.mse_loss(p, u) for p, u in zip(prediction, target, strict=True)]
    assert_close(error, torch.stack(by_hand))
    assert_close(error[2:3], velocity_error(prediction[2:3], target[2:3]))
    assert velocity_error(prediction.bfloat16(), target.bfloat16()).dtype == torch.float32


def test_bad_input_is_refused():
    prediction, target = velocities()
    with pytest.raises(ValueError, match=r"\[4, 3, 5, 5\] and \[3, 3, 5, 5\]"):
        velocity_error(prediction, target[:3])
    with pytest.raises(ValueError, match="at least 0, got -1"):
        confidence_weights(torch.ones(2), gamma=-1)
