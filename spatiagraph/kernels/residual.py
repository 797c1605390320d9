r"""Steps of a pre-norm transformer layer over many rows, on CPU in blocks that stay in its cache.

Written out, norms, biases, GELU and residuals each read and write all rows, and each result is fresh
memory: on a slide of 100,000 cells that costs as much as half of the matrix products. Here a block
of rows goes through all of them before the next one starts, and the backward pass computes again
what is cheap. Elsewhere (CUDA, autocast, half precision, ``torch.compile``) the formulas are run as
they stand; they are also what the tests compare with.

Norms have no weights: those belong into the matrix that follows, which is small.

.. math::
    (\hat{\mathbf{h}}\,\mathrm{diag}(\mathbf{g}) + \mathbf{c})\,\mathbf{W}^\top + \mathbf{b}
    = \hat{\mathbf{h}}\,(\mathbf{W}\,\mathrm{diag}(\mathbf{g}))^\top + (\mathbf{W}\mathbf{c} + \mathbf{b})

Shape letters: ``N`` rows, ``D`` channels, ``F`` and ``O`` other widths.
"""  # noqa: E501

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import dropout as drop
from torch.nn.functional import gelu, layer_norm, linear

from spatiagraph.kernels._memory import empty

BLOCK_ROWS = 8192  # a block of 128 channels is 4 MB: in the cache, and long enough for two threads

_norm_backward = torch.ops.aten.native_layer_norm_backward
_gelu_backward = torch.ops.aten.gelu_backward


def norm_linear(h: Tensor, weight: Tensor, bias: Tensor, *, eps: float = 1e-5) -> Tensor:
    r"""Linear map of the rows, each with mean 0 and variance 1.

    .. math::
        \hat{\mathbf{h}}\,\mathbf{W}^\top + \mathbf{b}

    Args:
        h: ``[N, D]``.
        weight: ``[O, D]``.
        bias: ``[O]``.
        eps: Added to the variance.

    Returns:
        ``[N, O]``.
    """
    if _in_blocks(h, weight):
        return _NormLinear.apply(h, weight, bias, eps)
    return linear(layer_norm(h, h.shape[1:], eps=eps), weight, bias)


def residual_linear(h: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    r"""Residual step of a linear map.

    .. math::
        \mathbf{h} + \mathbf{x}\,\mathbf{W}^\top + \mathbf{b}

    Args:
        h: What is added to, ``[N, D]``.
        x: ``[N, F]``.
        weight: ``[D, F]``.
        bias: ``[D]``.

    Returns:
        ``[N, D]``, in the dtype of ``h``.
    """
    if _in_blocks(h, weight) and x.dtype == h.dtype:
        return _ResidualLinear.apply(h, x, weight, bias)
    # under autocast the change is of half precision, which what it is added to must not become
    return h + linear(x, weight, bias)


def residual_mlp(
    h: Tensor,
    weight_in: Tensor,
    bias_in: Tensor,
    weight_out: Tensor,
    bias_out: Tensor,
    *,
    dropout: float = 0.0,
    eps: float = 1e-5,
) -> Tensor:
    r"""Residual step of an MLP on rows with mean 0 and variance 1.

    .. math::
        \mathbf{h} + \mathrm{Dropout}(\mathrm{GELU}(\hat{\mathbf{h}}\,\mathbf{W}_1^\top +
        \mathbf{b}_1))\,\mathbf{W}_2^\top + \mathbf{b}_2

    Args:
        h: ``[N, D]``.
        weight_in: ``[F, D]``.
        bias_in: ``[F]``.
        weight_out: ``[D, F]``.
        bias_out: ``[D]``.
        dropout: Probability that a hidden unit of a row is zero.
        eps: Added to the variance.

    Returns:
        ``[N, D]``, in the dtype of ``h``.
    """
    if _in_blocks(h, weight_in):
        keeps = torch.is_grad_enabled()  # what the backward pass needs
        weights = (weight_in, bias_in, weight_out, bias_out)
        return _ResidualMLP.apply(h, *weights, dropout, eps, keeps)
    hidden = gelu(linear(layer_norm(h, h.shape[1:], eps=eps), weight_in, bias_in))
    return h + linear(drop(hidden, dropout), weight_out, bias_out)


class _NormLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        out, statistics = empty((h.size(0), weight.size(0)), h.dtype), h.new_empty(2, h.size(0), 1)
        for rows in _blocks(h):
            torch.addmm(bias, _norm(h, rows, statistics, eps), weight.t(), out=out[rows])
        ctx.save_for_backward(h, weight, statistics)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, weight, statistics = ctx.saved_tensors
        grad_h, grad_weight = empty(h.shape, h.dtype), torch.zeros_like(weight)
        grad_bias = weight.new_zeros(weight.size(0))
        for rows in _blocks(h):
            grad_rows = grad[rows]
            grad_weight.addmm_(grad_rows.t(), _normed(h, rows, statistics))
            grad_bias += grad_rows.sum(0)
            grad_h[rows] = _unnorm(grad_rows @ weight, h, rows, statistics)
        return grad_h, grad_weight, grad_bias, None


class _ResidualLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        out = empty(h.shape, h.dtype)
        for rows in _blocks(h):
            torch.add(h[rows], bias, out=out[rows]).addmm_(x[rows], weight.t())
        ctx.save_for_backward(x, weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_x, grad_weight = empty(x.shape, x.dtype), torch.zeros_like(weight)
        grad_bias = weight.new_zeros(weight.size(0))
        for rows in _blocks(grad):
            grad_rows = grad[rows]
            torch.mm(grad_rows, weight, out=grad_x[rows])
            grad_weight.addmm_(grad_rows.t(), x[rows])
            grad_bias += grad_rows.sum(0)
        return grad, grad_x, grad_weight, grad_bias


class _ResidualMLP(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        weight_in: Tensor,
        bias_in: Tensor,
        weight_out: Tensor,
        bias_out: Tensor,
        dropout: float,
        eps: float,
        keeps: bool,
    ) -> Tensor:
        out, statistics = empty(h.shape, h.dtype), h.new_empty(2, h.size(0), 1)
        kept_rows = h.size(0) if keeps else min(BLOCK_ROWS, h.size(0))
        before = empty((kept_rows, weight_in.size(0)), h.dtype)  # what GELU is taken of
        passed = torch.empty(before.shape if dropout else 0, dtype=torch.bool)
        for rows in _blocks(h):
            at = rows if keeps else slice(0, rows.stop - rows.start)
            normed = _norm(h, rows, statistics, eps)
            hidden = gelu(torch.addmm(bias_in, normed, weight_in.t(), out=before[at]))
            if dropout:
                _drop(hidden, passed[at].bernoulli_(1.0 - dropout), dropout)
            torch.add(h[rows], bias_out, out=out[rows]).addmm_(hidden, weight_out.t())
        if keeps:
            ctx.save_for_backward(h, weight_in, weight_out, statistics, before, passed)
        ctx.dropout = dropout
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, weight_in, weight_out, statistics, before, passed = ctx.saved_tensors
        grad_h = empty(h.shape, h.dtype)
        grad_in, grad_out = torch.zeros_like(weight_in), torch.zeros_like(weight_out)
        grad_bias_in, grad_bias_out = (w.new_zeros(w.size(0)) for w in (weight_in, weight_out))
        for rows in _blocks(h):
            grad_rows, hidden = grad[rows], gelu(before[rows])
            grad_hidden = grad_rows @ weight_out
            if ctx.dropout:
                for x in (hidden, grad_hidden):
                    _drop(x, passed[rows], ctx.dropout)
            grad_out.addmm_(grad_rows.t(), hidden)
            grad_bias_out += grad_rows.sum(0)
            grad_before = _gelu_backward(grad_hidden, before[rows])
            grad_in.addmm_(grad_before.t(), _normed(h, rows, statistics))
            grad_bias_in += grad_before.sum(0)
            grad_normed = grad_before @ weight_in
            torch.add(grad_rows, _unnorm(grad_normed, h, rows, statistics), out=grad_h[rows])
        return grad_h, grad_in, grad_bias_in, grad_out, grad_bias_out, None, None, None


def _in_blocks(h: Tensor, weight: Tensor) -> bool:
    """Whether the formulas go block by block: on CPU, in full precision, outside a compiler."""
    return (
        h.device.type == "cpu"
        and h.dtype in (torch.float32, torch.float64)
        and h.dtype == weight.dtype
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def _blocks(x: Tensor) -> Iterator[slice]:
    num_rows = x.size(0)
    for start in range(0, num_rows, BLOCK_ROWS):
        yield slice(start, min(start + BLOCK_ROWS, num_rows))


def _norm(h: Tensor, rows: slice, statistics: Tensor, eps: float) -> Tensor:
    """Rows with mean 0 and variance 1; ``statistics [2, N, 1]`` keeps means and 1 / deviations."""
    normed, *own = torch.native_layer_norm(h[rows], h.shape[1:], None, None, eps)
    for into, value in zip(statistics, own, strict=True):
        into[rows] = value
    return normed


def _normed(h: Tensor, rows: slice, statistics: Tensor) -> Tensor:
    """The same once more, at a fifth of the cost."""
    mean, inverse = statistics[:, rows]
    return (h[rows] - mean).mul_(inverse)


def _unnorm(grad: Tensor, h: Tensor, rows: slice, statistics: Tensor) -> Tensor:
    """Gradient of ``h[rows]``, of the gradient of the normed rows."""
    which = [True, False, False]
    return _norm_backward(grad, h[rows], h.shape[1:], *statistics[:, rows], None, None, which)[0]


def _drop(x: Tensor, passed: Tensor, dropout: float) -> None:
    x.mul_(passed).mul_(1.0 / (1.0 - dropout) if dropout < 1 else 0.0)
