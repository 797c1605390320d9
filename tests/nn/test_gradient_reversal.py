import pytest
import torch
from torch import nn
from torch.testing import assert_close

from spatiagraph.nn.gradient_reversal import GradientReversal, reverse_gradient


def random_input():
    torch.manual_seed(0)
    return torch.randn(4, 3, requires_grad=True)


def test_forward_is_the_identity():
    x = random_input()
    assert_close(reverse_gradient(x, 0.3), x, atol=0, rtol=0)
    assert_close(GradientReversal()(x), x, atol=0, rtol=0)


@pytest.mark.parametrize("strength", [0.0, 0.1, 1.0, 2.5])
def test_the_gradient_is_reversed_and_scaled(strength):
    x, layer = random_input(), GradientReversal(strength)
    (plain,) = torch.autograd.grad(x.pow(3).sum(), x)
    (turned,) = torch.autograd.grad(layer(x).pow(3).sum(), x)
    assert_close(turned, -strength * plain)


def test_twice_is_not_at_all():
    x, twice = random_input(), nn.Sequential(GradientReversal(), GradientReversal())
    twice(x).sin().sum().backward()
    assert_close(x.grad, x.detach().cos())


def test_what_comes_after_is_taught_as_usual():
    x, linear = random_input(), nn.Linear(3, 2)
    usual = torch.autograd.grad(linear(x).square().sum(), linear.weight)
    assert_close(
        torch.autograd.grad(linear(reverse_gradient(x)).square().sum(), linear.weight), usual
    )


def test_it_maps_over_a_batch_of_gradients():
    x = random_input().detach()
    per_row = torch.vmap(torch.func.grad(lambda row: reverse_gradient(row, 2.0).square().sum()))(x)
    assert_close(per_row, -4 * x)


def test_the_layer_shows_its_strength():
    assert str(GradientReversal(0.5)) == "GradientReversal(strength=0.5)"
