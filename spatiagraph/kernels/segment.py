"""Sums, means, maxima and softmax over consecutive rows: what belongs to one niche lies together.

``ptr`` marks the segments: rows ``ptr[i]:ptr[i + 1]`` of ``x`` are segment ``i``. An empty segment
gives zeros.
"""

import torch
from torch import Tensor

from spatiagraph.kernels import _torch
from spatiagraph.kernels._graph import segment_ids
from spatiagraph.kernels.backends import backend_for, implementation


def segment_sum(x: Tensor, ptr: Tensor) -> Tensor:
    r"""Sum of the rows of each segment, :math:`\mathbf{y}_i = \sum_{e \in i} \mathbf{x}_e`.

    Args:
        x: Rows ordered by segment, ``[E, ...]``, floating.
        ptr: First row of each segment and the end of the last one, ``[S + 1]``, integers.

    Returns:
        ``[S, ...]``; an empty segment is zero.

    Raises:
        ValueError: If ``ptr`` does not divide the rows of ``x``.

    Example:
        >>> segment_sum(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 2, 2, 3]))
        tensor([3., 0., 3.])
    """
    _check(x, ptr)
    return _segment_sum(x, ptr, backend_for(x))


def segment_mean(x: Tensor, ptr: Tensor) -> Tensor:
    """Mean of the rows of each segment; arguments as in :func:`segment_sum`.

    Example:
        >>> segment_mean(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 2, 2, 3]))
        tensor([1.5000, 0.0000, 3.0000])
    """
    _check(x, ptr)
    count = ptr.diff().clamp_min(1).to(x.dtype)
    return _segment_sum(x, ptr, backend_for(x)) / count.view(-1, *[1] * (x.dim() - 1))


def segment_max(x: Tensor, ptr: Tensor) -> Tensor:
    """Largest entry of each segment, per channel; arguments as in :func:`segment_sum`.

    The gradient goes to the first of equal entries.

    Example:
        >>> segment_max(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 2, 2, 3]))
        tensor([2., 0., 3.])
    """
    _check(x, ptr)
    segment = segment_ids(ptr, x.size(0))
    peak = _torch.segment_reduce(x.detach(), ptr, "max", -torch.inf)
    row = torch.arange(x.size(0), device=x.device).view(-1, *[1] * (x.dim() - 1))
    tied = torch.where(x.detach() == peak[segment], row, x.size(0)).double()
    first = _torch.segment_reduce(tied, ptr, "min", float(x.size(0))).long()
    padded = torch.cat([x, x.new_zeros((1, *x.shape[1:]))])  # row E: empty segments
    return padded.gather(0, first)


def segment_softmax(x: Tensor, ptr: Tensor) -> Tensor:
    r"""Softmax over the rows of each segment, per channel; arguments as in :func:`segment_sum`.

    .. math:: p_e = \exp(x_e) / \sum_{e' \in i(e)} \exp(x_{e'})

    Returns:
        ``[E, ...]``, positive, each segment summing to one.

    Example:
        >>> segment_softmax(torch.tensor([0.0, 0.0, 3.0]), torch.tensor([0, 2, 2, 3]))
        tensor([0.5000, 0.5000, 1.0000])
    """
    _check(x, ptr)
    segment = segment_ids(ptr, x.size(0))
    peak = _torch.segment_reduce(x.detach(), ptr, "max", -torch.inf)
    e = (x - peak[segment]).exp()
    return e / _segment_sum(e, ptr, backend_for(x)).index_select(0, segment)


@torch.library.custom_op("spatiagraph::segment_sum", mutates_args=())
def _segment_sum(x: Tensor, ptr: Tensor, backend: str) -> Tensor:
    _check_bounds(x, ptr)  # here as well: code that is being compiled comes with bounds unseen
    return implementation(backend).segment_sum(x, ptr)


@_segment_sum.register_fake
def _(x, ptr, backend):
    return x.new_empty((ptr.size(0) - 1, *x.shape[1:]))


def _save(ctx, inputs, output):
    x, ptr, _ = inputs
    ctx.num_rows = x.size(0)
    ctx.save_for_backward(ptr)


def _differentiate(ctx, grad):
    (ptr,) = ctx.saved_tensors
    return grad.index_select(0, segment_ids(ptr, ctx.num_rows)), None, None


_segment_sum.register_autograd(_differentiate, setup_context=_save)


def _check(x: Tensor, ptr: Tensor) -> None:
    if x.dim() == 0 or not x.is_floating_point():
        raise ValueError(f"Expected floating 'x' of shape [E, ...], got {x.dtype} {list(x.shape)}")
    if ptr.dim() != 1 or ptr.numel() == 0 or ptr.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"Expected integer 'ptr' of shape [S + 1], got {ptr.dtype} {list(ptr.shape)}"
        )
    if ptr.device != x.device:
        raise ValueError(f"Expected 'ptr' on the device of 'x' ({x.device}), got {ptr.device}")
    if not torch.compiler.is_compiling():
        _check_bounds(x, ptr)


def _check_bounds(x: Tensor, ptr: Tensor) -> None:
    """No kernel looks at the bounds, torch's own included. CUDA does so without waiting for it."""
    if x.device.type == "cuda":
        rises = (ptr[0] == 0) & (ptr[-1] == x.size(0)) & (ptr.diff() >= 0).all()
        torch._assert_async(rises, f"Expected 'ptr' to rise from 0 to {x.size(0)}, the rows of 'x'")
    elif x.device.type == "cpu":
        if ptr[0] != 0 or ptr[-1] != x.size(0) or bool((ptr.diff() < 0).any()):
            raise ValueError(
                f"Expected 'ptr' to rise from 0 to the {x.size(0)} rows of 'x', "
                f"got {ptr[0].item()} to {ptr[-1].item()}"
                + (", falling in between" if bool((ptr.diff() < 0).any()) else "")
            )
