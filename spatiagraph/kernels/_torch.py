"""Neighbour attention and segment sums in plain torch: the reference for every other backend.

Runs on any device and dtype (half precision accumulates in float32). Memory grows with edges ×
channels, which is what the other backends avoid. Legend: ``s`` scores, ``p`` softmax weights,
``w`` weights after dropout.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from spatiagraph.kernels._graph import segment_ids
from spatiagraph.kernels._random import keep_scale


def segment_reduce(x: Tensor, ptr: Tensor, reduce: str, initial: float) -> Tensor:
    """Reduce rows ``ptr[i]:ptr[i + 1]`` of ``x [E, ...]`` into row ``i``, from ``initial``."""
    if ptr.numel() == 1:
        return x.new_empty((0, *x.shape[1:]))
    return torch.segment_reduce(x.contiguous(), reduce, offsets=ptr, axis=0, initial=initial)


def segment_sum(x: Tensor, ptr: Tensor) -> Tensor:
    """Sum of the rows of each segment of ``x [E, ...]``, ``[S, ...]``."""
    return segment_reduce(x, ptr, "sum", 0.0)


def attention_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    colptr: Tensor,
    row: Tensor,
    dropout: float,
    seed: Tensor | None,
    *,
    segment_reduce: Callable[[Tensor, Tensor, str, float], Tensor] = segment_reduce,
) -> tuple[Tensor, Tensor]:
    """``(out [M, H, D], lse [M, H])`` over edges sorted by target."""
    target = segment_ids(colptr, row.numel())
    source_v = _accumulate(v)[row]
    s = _scores(q, k, bias, target, row)
    peak = segment_reduce(s, colptr, "max", -math.inf)
    peak = peak.masked_fill(peak == -math.inf, 0.0)
    e = (s - peak[target]).exp()
    total = segment_reduce(e, colptr, "sum", 0.0)
    w = e / total[target].clamp_min(torch.finfo(e.dtype).tiny)
    if dropout > 0.0:
        w = w * keep_scale(w.size(0), w.size(1), dropout, seed, like=w)
    out = segment_reduce(w.unsqueeze(-1) * source_v, colptr, "sum", 0.0)
    return out.to(q.dtype), peak + total.log()


def attention_backward(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    out: Tensor,
    lse: Tensor,
    colptr: Tensor,
    row: Tensor,
    transpose: tuple[Tensor, Tensor, Tensor],
    dropout: float,
    seed: Tensor | None,
    *,
    segment_reduce: Callable[[Tensor, Tensor, str, float], Tensor] = segment_reduce,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``q``, ``k``, ``v`` and of the scores ``[E, H]``.

    The gradient that reaches a row through the softmax's normaliser is one number per head, the
    product of output and its gradient (FlashAttention, https://arxiv.org/abs/2205.14135, B.2).
    """
    rowptr, _, edge = transpose
    scale = 1.0 / math.sqrt(q.size(-1))
    target = segment_ids(colptr, row.numel())
    delta = (_accumulate(grad_out) * _accumulate(out)).sum(-1)  # [M, H]
    if grad_lse is not None:
        delta = delta - grad_lse
    g = _accumulate(grad_out)[target]  # [E, H, D]
    s = _scores(q, k, bias, target, row)
    p = torch.where(s == -math.inf, 0.0, (s - lse[target]).exp())
    w, grad_w = p, (g * _accumulate(v)[row]).sum(-1)
    if dropout > 0.0:
        keep = keep_scale(p.size(0), p.size(1), dropout, seed, like=p)
        w, grad_w = p * keep, grad_w * keep
    grad_s = p * (grad_w - delta[target])
    through = (grad_s * scale).unsqueeze(-1)
    grad_q = segment_reduce(through * _accumulate(k)[row], colptr, "sum", 0.0)
    grad_k = segment_reduce((through * _accumulate(q)[target])[edge], rowptr, "sum", 0.0)
    grad_v = segment_reduce((w.unsqueeze(-1) * g)[edge], rowptr, "sum", 0.0)
    return grad_q.to(q.dtype), grad_k.to(k.dtype), grad_v.to(v.dtype), grad_s


def _scores(q: Tensor, k: Tensor, bias: Tensor | None, target: Tensor, row: Tensor) -> Tensor:
    s = (_accumulate(q)[target] * _accumulate(k)[row]).sum(-1) / math.sqrt(q.size(-1))
    return s if bias is None else s + bias.to(s.dtype)


def _accumulate(x: Tensor) -> Tensor:
    """Half precision is computed in float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
