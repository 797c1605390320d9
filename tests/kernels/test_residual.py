import pytest
import torch
from torch.nn.functional import gelu, layer_norm, linear
from torch.testing import assert_close

from spatiagraph.kernels import norm_linear, residual_linear, residual_mlp

ROWS = 20_000  # three blocks, the last one short


def inputs(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes
    ]


def assert_same(got: torch.Tensor, expected: torch.Tensor, leaves: list[torch.Tensor]) -> None:
    """One value and one gradient of every input."""
    assert got.dtype == expected.dtype
    assert_close(got, expected)
    weight = torch.randn(got.shape, dtype=got.dtype, generator=torch.Generator().manual_seed(1))
    grads = (torch.autograd.grad((out * weight).sum(), leaves) for out in (got, expected))
    for one, other in zip(*grads, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("rows", [0, 1, 7, ROWS])
def test_norm_linear_is_a_norm_and_a_linear_map(rows):
    h, weight, bias = leaves = inputs((rows, 6), (5, 6), (5,))
    expected = linear(layer_norm(h, (6,), eps=0.1), weight, bias)
    assert_same(norm_linear(h, weight, bias, eps=0.1), expected, leaves)


@pytest.mark.parametrize("rows", [0, 1, 7, ROWS])
def test_residual_linear_adds_a_linear_map(rows):
    h, x, weight, bias = leaves = inputs((rows, 6), (rows, 4), (6, 4), (6,))
    assert_same(residual_linear(h, x, weight, bias), h + linear(x, weight, bias), leaves)


@pytest.mark.parametrize("rows", [0, 1, 7, ROWS])
def test_residual_mlp_is_the_formula(rows):
    h, *weights = leaves = inputs((rows, 6), (9, 6), (9,), (6, 9), (6,))
    hidden = gelu(linear(layer_norm(h, (6,)), *weights[:2]))
    assert_same(residual_mlp(h, *weights), h + linear(hidden, *weights[2:]), leaves)


def test_single_precision_is_as_exact_as_the_formula():
    h, *weights = leaves = inputs((ROWS, 6), (9, 6), (9,), (6, 9), (6,), dtype=torch.float32)
    exact = residual_mlp(*(x.double() for x in leaves))
    formula = h + linear(gelu(linear(layer_norm(h, (6,)), *weights[:2])), *weights[2:])
    error = (residual_mlp(*leaves) - exact).abs().max()
    assert error < 2 * (formula - exact).abs().max() < 1e-4


def test_without_gradients_the_result_is_the_same_to_the_bit():
    leaves = inputs((ROWS, 6), (9, 6), (9,), (6, 9), (6,), dtype=torch.float32)
    with torch.no_grad():
        assert_close(residual_mlp(*leaves), residual_mlp(*leaves).detach(), rtol=0, atol=0)
        alone = residual_mlp(*leaves)
    assert_close(residual_mlp(*leaves).detach(), alone, rtol=0, atol=0)


def test_dropout_drops_hidden_units_and_their_gradients():
    """With an identity behind them, hidden units are seen one by one."""
    h, weight_in, bias_in = inputs((ROWS, 6), (6, 6), (6,))
    identity, none = torch.eye(6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
    torch.manual_seed(0)
    out = residual_mlp(h, weight_in, bias_in, identity, none, dropout=0.25)
    hidden = gelu(linear(layer_norm(h, (6,)), weight_in, bias_in))
    passed = (out - h).abs() > 1e-12
    assert passed.double().mean().item() == pytest.approx(0.75, abs=0.005)
    assert_same(out, h + hidden * passed / 0.75, [h, weight_in, bias_in])


def test_full_dropout_leaves_the_bias():
    h, *weights = leaves = inputs((7, 6), (9, 6), (9,), (6, 9), (6,))
    assert_close(residual_mlp(*leaves, dropout=1.0), h + weights[3], rtol=0, atol=0)


def test_dropout_follows_the_seed():
    leaves = inputs((ROWS, 6), (9, 6), (9,), (6, 9), (6,))
    torch.manual_seed(3)
    first = residual_mlp(*leaves, dropout=0.5)
    assert not torch.equal(residual_mlp(*leaves, dropout=0.5), first)
    torch.manual_seed(3)
    assert_close(residual_mlp(*leaves, dropout=0.5), first, rtol=0, atol=0)


def test_backward_is_refused_twice():
    """The backward pass has no derivative: silence would be a wrong second one."""
    h, weight, bias = inputs((3, 6), (5, 6), (5,))
    (grad,) = torch.autograd.grad(norm_linear(h, weight, bias).square().sum(), h, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_compiler_sees_the_formula():
    leaves = inputs((7, 6), (9, 6), (9,), (6, 9), (6,))
    compiled = torch.compile(residual_mlp, fullgraph=True, backend="eager")
    assert_same(compiled(*leaves), residual_mlp(*leaves), leaves)
