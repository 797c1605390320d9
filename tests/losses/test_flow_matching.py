import pytest
import torch
from torch import nn
from torch.testing import assert_close

from spatiagraph.flow import LinearPath, sample_times
from spatiagraph.losses import confidence_weights, flow_matching_loss, velocity_error


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


@pytest.mark.parametrize(
    "weight",
    [None, confidence_weights(torch.rand(4), gamma=0), confidence_weights(torch.full((4,), 0.25))],
)
def test_equal_confidence_is_plain_flow_matching(weight):
    """SPATIA fact 28."""
    prediction, target = velocities()
    plain = nn.functional.mse_loss(prediction, target)
    assert_close(flow_matching_loss(prediction, target, weight), plain, atol=0, rtol=1e-14)


def test_each_pair_counts_by_its_weight():
    """SPATIA fact 31."""
    prediction, target = velocities()
    weight = torch.tensor([0.5, 1.0, 2.0, 0.0])
    samples = zip(weight, prediction, target, strict=True)
    by_hand = sum(w * (p - u).square().mean() for w, p, u in samples) / 4
    assert_close(flow_matching_loss(prediction, target, weight), by_hand)
    still = flow_matching_loss(torch.zeros_like(target), target)
    assert_close(still, target.square().mean())  # a network that does not move yet


def test_training_step_is_that_of_the_plainest_flow_matching():
    """SPATIA fact 29."""
    control, target = velocities(8, torch.float32)
    torch.manual_seed(1)
    network = nn.Conv2d(4, 3, 3, padding=1)

    def velocity(x, t):
        return network(torch.cat([x, t.view(-1, 1, 1, 1).expand_as(x[:, :1])], 1))

    t = sample_times(8, generator=torch.manual_seed(2))
    point = LinearPath().at(control, target, t)
    loss = flow_matching_loss(velocity(point.x, t), point.velocity)
    ours = torch.autograd.grad(loss, network.weight)[0]

    torch.manual_seed(2)
    t = torch.rand(8)
    place = (1 - t[:, None, None, None]) * control + t[:, None, None, None] * target
    plain = ((velocity(place, t) - (target - control)) ** 2).mean()
    assert_close(loss, plain)
    assert_close(ours, torch.autograd.grad(plain, network.weight)[0])


def test_error_of_each_sample_is_its_own_and_in_single_precision():
    prediction, target = velocities()
    error = velocity_error(prediction, target)
    assert_close(error[2:3], velocity_error(prediction[2:3], target[2:3]))
    assert velocity_error(prediction.bfloat16(), target.bfloat16()).dtype == torch.float32


def test_bad_input_is_refused():
    prediction, target = velocities()
    with pytest.raises(ValueError, match=r"\[4, 3, 5, 5\] and \[3, 3, 5, 5\]"):
        flow_matching_loss(prediction, target[:3])
    with pytest.raises(ValueError, match=r"'weight' as \[4\], got \[4, 1\]"):
        flow_matching_loss(prediction, target, torch.ones(4, 1))
    with pytest.raises(ValueError, match="at least 0, got -1"):
        confidence_weights(torch.ones(2), gamma=-1)
