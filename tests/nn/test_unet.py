import pytest
import torch
from torch.testing import assert_close

from spatiagraph.nn import VelocityUNet

SMALL = {"channels": 8, "num_blocks": 1, "head_channels": 8, "dropout": 0.0}
INJECTIONS = ["additive", "film", "cross"]


def network(injection: str = "additive", *, moving: bool = True, **options) -> VelocityUNet:
    """A network that moves, unlike one that was just built."""
    torch.manual_seed(0)
    net = VelocityUNet(1, condition_channels=6, injection=injection, **{**SMALL, **options})
    if moving:
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return net.eval()


def inputs(injection: str = "additive", num: int = 3) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    shape = (num, 4, 6) if injection == "cross" else (num, 6)
    return (
        torch.randn(num, 1, 16, 16, generator=generator),
        torch.rand(num, generator=generator),
        torch.randn(shape, generator=generator),
    )


@pytest.mark.parametrize("injection", INJECTIONS)
def test_an_untrained_network_stands_still(injection):
    """SPATIA fact 31."""
    x, t, condition = inputs(injection)
    assert not network(injection, moving=False)(x, t, condition).any()


@pytest.mark.parametrize("injection", INJECTIONS)
def test_an_untrained_network_gets_a_gradient(injection):
    net = network(injection, moving=False)
    net(*inputs(injection)).sub(1).square().mean().backward()
    assert net.net.conv_out.weight.grad.abs().max() > 0


@pytest.mark.parametrize("injection", INJECTIONS)
def test_a_dropped_condition_is_no_condition(injection):
    """SPATIA fact 34."""
    net, (x, t, condition) = network(injection), inputs(injection)
    keep = torch.tensor([True, False, True])
    some, free, all_ = net(x, t, condition, keep), net(x, t), net(x, t, condition)
    assert_close(some[1], free[1], rtol=0, atol=1e-6)
    assert_close(some[keep], all_[keep], rtol=0, atol=1e-6)
    assert (some[1] - all_[1]).abs().max() > 1e-4


def test_the_null_condition_adds_nothing_to_the_time():
    """SPATIA fact 34: exactly, not nearly."""
    net, (x, t, condition) = network(), inputs()
    free = net(x, t)
    assert torch.equal(free, net(x, t, condition, torch.zeros(3, dtype=torch.bool)))


@pytest.mark.parametrize("injection", INJECTIONS)
def test_the_condition_and_the_time_change_the_velocity(injection):
    net, (x, t, condition) = network(injection), inputs(injection)
    first = net(x, t, condition)
    assert (net(x, t, condition.flip(0)) - first).abs().max() > 1e-4
    assert (net(x, t + 0.1, condition) - first).abs().max() > 1e-4


def test_cells_do_not_see_each_other():
    net, (x, t, condition) = network(), inputs()
    assert_close(net(x[:1], t[:1], condition[:1]), net(x, t, condition)[:1])


def test_a_condition_of_tokens_does_not_depend_on_their_order():
    net, (x, t, condition) = network("cross"), inputs("cross")
    assert_close(net(x, t, condition), net(x, t, condition.flip(1)), rtol=1e-4, atol=1e-5)


def test_attention_starts_where_it_is_asked_to():
    def attends(start: int) -> list[bool]:
        return [hasattr(b, "attentions") for b in network(attention_from=start).net.down_blocks]

    assert attends(4) == [False, False, True]
    assert attends(2) == [False, True, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": torch.zeros(2, 3, 16, 16)}, "images \\[B, 1, H, W\\]"),
        ({"x": torch.zeros(2, 1, 18, 16)}, "divisible by 4"),
        ({"condition": torch.zeros(2, 5)}, "condition \\[B, 6\\]"),
        ({"condition": torch.zeros(2, 3, 6)}, "condition \\[B, 6\\]"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    given = {"x": torch.zeros(2, 1, 16, 16), "t": torch.zeros(2), "condition": None}
    with pytest.raises(ValueError, match=message):
        network()(**{**given, **options})


def test_a_network_without_condition_refuses_one():
    net = VelocityUNet(1, **SMALL)
    with pytest.raises(ValueError, match="without"):
        net(torch.zeros(2, 1, 16, 16), torch.zeros(2), torch.zeros(2, 6))


def test_an_unknown_injection_is_refused():
    with pytest.raises(ValueError, match="additive"):
        VelocityUNet(1, injection="sideways", **SMALL)
