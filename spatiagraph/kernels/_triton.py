"""Neighbour attention on CUDA: one program per target (or source), all heads of a row together.

Half precision is read and written as it is and summed in float32. A program walks over its edges
in tiles ``[BLOCK, heads, channels]``; rows of more than ``HUB_DEGREE`` edges are left to a second
launch with larger tiles and more warps, so neither kNN graphs nor hubs wait for the other. Without
atomics: the transposed graph gives each source its edges.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from spatiagraph.kernels import _torch
from spatiagraph.kernels._random import split_seed, threshold

HUB_DEGREE = 256
TILE = 4096  # numbers in a tile of a regular row
HUB_TILE = 16384

_NO_LIMIT = 2**31 - 1
_SEEDS = ["drop_below", "seed_low", "seed_high", "least", "most"]


def attention_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    colptr: Tensor,
    row: Tensor,
    dropout: float,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """``(out [M, H, D], lse [M, H])``; see :mod:`spatiagraph.kernels._torch`."""
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    out = torch.empty_like(q)
    lse = q.new_empty(q.shape[:2], dtype=torch.promote_types(q.dtype, torch.float32))
    _launch(
        _forward, colptr, row, q, dropout, seed, bias,
        q_ptr=q, k_ptr=k, v_ptr=v, out_ptr=out, lse_ptr=lse, row_ptr=row,
    )  # fmt: skip
    return out, lse


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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``q``, ``k``, ``v`` and ``bias``; see :mod:`spatiagraph.kernels._torch`."""
    q, k, v, g = q.contiguous(), k.contiguous(), v.contiguous(), grad_out.contiguous()
    rowptr, col, edge = transpose
    delta = (g.to(lse.dtype) * out.to(lse.dtype)).sum(-1)  # [M, H]
    if grad_lse is not None:
        delta = delta - grad_lse
    grad_bias = lse.new_empty((0, q.size(1))) if bias is None else torch.empty_like(bias)
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    shared = {
        "q_ptr": q, "k_ptr": k, "v_ptr": v, "g_ptr": g, "lse_ptr": lse, "delta_ptr": delta,
    }  # fmt: skip
    _launch(
        _backward_targets, colptr, row, q, dropout, seed, bias,
        **shared, grad_q_ptr=grad_q, grad_bias_ptr=grad_bias, row_ptr=row,
    )  # fmt: skip
    _launch(
        _backward_sources, rowptr, col, q, dropout, seed, bias,
        **shared, grad_k_ptr=grad_k, grad_v_ptr=grad_v, col_ptr=col, edge_ptr=edge,
    )  # fmt: skip
    return grad_q, grad_k, grad_v, grad_bias


def segment_sum(x: Tensor, ptr: Tensor) -> Tensor:
    """Torch's own kernel is one program per segment already."""
    return _torch.segment_sum(x, ptr)


def _launch(
    kernel: Any,
    ptr: Tensor,
    index: Tensor,
    q: Tensor,
    dropout: float,
    seed: Tensor | None,
    bias: Tensor | None,
    **arguments: Any,
) -> None:
    """Run a kernel over all rows of ``ptr``: the regular ones, then the hubs."""
    rows, (heads, channels) = ptr.numel() - 1, q.shape[1:]
    if rows == 0:
        return
    padded = triton.next_power_of_2(heads) * triton.next_power_of_2(channels)
    low, high = split_seed(seed)
    mean_degree = triton.next_power_of_2(max(1, index.numel() // rows))
    launches = [(-1, HUB_DEGREE, min(mean_degree, max(1, TILE // padded)), 4)]
    if index.numel() > HUB_DEGREE:
        launches.append((HUB_DEGREE, _NO_LIMIT, max(1, HUB_TILE // padded), 8))
    for least, most, block, warps in launches:
        kernel[(rows,)](
            **arguments,
            bias_ptr=q if bias is None else bias.contiguous(),
            ptr_ptr=ptr,
            least=least,
            most=most,
            SCALE=channels**-0.5,
            KEEP=1.0 / (1.0 - dropout),
            drop_below=threshold(dropout),
            seed_low=low,
            seed_high=high,
            HEADS=heads,
            CHANNELS=channels,
            HEADS_PAD=triton.next_power_of_2(heads),
            CHANNELS_PAD=triton.next_power_of_2(channels),
            BLOCK=block,
            HAS_BIAS=bias is not None,
            DROP=dropout > 0.0,
            SUM=tl.float64 if q.dtype == torch.float64 else tl.float32,
            num_warps=warps,
        )


@triton.jit
def _mix(x):
    x = x ^ (x >> 16)
    x = x * tl.full([], 0x7FEB352D, tl.uint32)
    x = x ^ (x >> 15)
    x = x * tl.full([], 0x846CA68B, tl.uint32)
    return x ^ (x >> 16)


@triton.jit
def _kept(edge, head, drop_below, seed_low, seed_high):
    """The same bits as :func:`spatiagraph.kernels._random.keep_scale`, ``[BLOCK, heads]``."""
    low, high = tl.cast(seed_low, tl.uint32), tl.cast(seed_high, tl.uint32)
    step = tl.full([], 0x9E3779B9, tl.uint32)
    first = _mix(edge.to(tl.uint32) ^ low)[:, None]
    bits = _mix((first + (head.to(tl.uint32) * step)[None, :]) ^ high)
    return bits >= tl.cast(drop_below, tl.uint32)


@triton.jit
def _tile(x_ptr, rows, live, HEADS, CHANNELS, HEADS_PAD, CHANNELS_PAD, SUM):
    """Rows of ``x [N, H, D]`` as ``[BLOCK, heads, channels]``, zero where there is nothing."""
    head, channel = tl.arange(0, HEADS_PAD), tl.arange(0, CHANNELS_PAD)
    place = head[:, None] * CHANNELS + channel[None, :]
    inside = (head < HEADS)[:, None] & (channel < CHANNELS)[None, :]
    address = x_ptr + rows.to(tl.int64)[:, None, None] * (HEADS * CHANNELS) + place[None, :, :]
    mask = live[:, None, None] & inside[None, :, :]
    return tl.load(address, mask=mask, other=0.0).to(SUM)


@triton.jit
def _row(x_ptr, i, HEADS, CHANNELS, HEADS_PAD, CHANNELS_PAD, SUM):
    """Row ``i`` of ``x [N, H, D]`` as ``[heads, channels]``."""
    head, channel = tl.arange(0, HEADS_PAD), tl.arange(0, CHANNELS_PAD)
    place = head[:, None] * CHANNELS + channel[None, :]
    inside = (head < HEADS)[:, None] & (channel < CHANNELS)[None, :]
    address = x_ptr + i.to(tl.int64) * (HEADS * CHANNELS) + place
    return tl.load(address, mask=inside, other=0.0).to(SUM)


@triton.jit
def _store_row(x_ptr, i, value, HEADS, CHANNELS, HEADS_PAD, CHANNELS_PAD):
    head, channel = tl.arange(0, HEADS_PAD), tl.arange(0, CHANNELS_PAD)
    place = head[:, None] * CHANNELS + channel[None, :]
    inside = (head < HEADS)[:, None] & (channel < CHANNELS)[None, :]
    address = x_ptr + i.to(tl.int64) * (HEADS * CHANNELS) + place
    tl.store(address, value.to(x_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _numbers(x_ptr, rows, live, HEADS, HEADS_PAD, SUM):
    """Rows of ``x [N, H]`` as ``[BLOCK, heads]``."""
    head = tl.arange(0, HEADS_PAD)
    address = x_ptr + rows.to(tl.int64)[:, None] * HEADS + head[None, :]
    mask = live[:, None] & (head < HEADS)[None, :]
    return tl.load(address, mask=mask, other=0.0).to(SUM)


@triton.jit(do_not_specialize=_SEEDS)
def _forward(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, row_ptr, bias_ptr, ptr_ptr,
    least, most, drop_below, seed_low, seed_high,
    SCALE: tl.constexpr, KEEP: tl.constexpr,
    HEADS: tl.constexpr, CHANNELS: tl.constexpr,
    HEADS_PAD: tl.constexpr, CHANNELS_PAD: tl.constexpr, BLOCK: tl.constexpr,
    HAS_BIAS: tl.constexpr, DROP: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0)
    first, last = tl.load(ptr_ptr + i), tl.load(ptr_ptr + i + 1)
    if (last - first > least) & (last - first <= most):
        head = tl.arange(0, HEADS_PAD)
        q_i = _row(q_ptr, i, HEADS, CHANNELS, HEADS_PAD, CHANNELS_PAD, SUM) * SCALE
        peak = tl.full([HEADS_PAD], float("-inf"), SUM)
        total = tl.zeros([HEADS_PAD], SUM)
        out = tl.zeros([HEADS_PAD, CHANNELS_PAD], SUM)
        for start in range(first, last, BLOCK):
            e = start + tl.arange(0, BLOCK)
            live = e < last
            j = tl.load(row_ptr + e, mask=live, other=0)
            k_j = _tile(k_ptr, j, live, HEADS, CHANNELS, HEADS_PAD, CHANNELS_PAD, SUM)
            s = tl.sum(q_i[None, :, :] * k_j, 2)  # [BLOCK, heads]
            if HAS_BIAS:
                s += _numbers(bias_ptr, e, live, HEADS, HEADS_PAD, SUM)
            s = tl.where(live[:, None], s, float("-inf"))
            higher = tl.maximum(peak, tl.max(s, 0))
            finite = tl.where(higher == float("-inf"), 0.0, higher)
            decay = tl.exp(peak - finite)
            p = tl.exp(s - finite[None, :])
            total = total * decay + tl.sum(p, 0)
            if DROP:
                p = tl.where(_kept(e, head, drop_below, seed_low, seed_high), p * KEEP, 0.0)
            v_j = _tile(v_ptr, j, live, HEADS, CHANNELS, HEADS_PAD, CHANNELS_PAD, SUM)
            out = out * decay[:, None] + tl.sum(p[:, :, None] * v_j, 0)
            peak = higher
        some = total > 0.0
        out = out / tl.where(some, total, 1.0)[:, None]
        _store_row(out_ptr, i, out, HEADS, CHANNELS, HEADS_PAD, CHANNELS_PAD)
        lse = tl.where(some, peak + tl.log(tl.where(some, total, 1.0)), float("-inf"))
        tl.store(lse_ptr + i.to(tl.int64) * HEADS + head, lse, mask=head < HEADS)


@triton.jit
def _edge_gradient(s, lse, delta, grad_w, live, kept):
    """Softmax weights after dropout, and gradients of the scores, ``[BLOCK, heads]``."""
    some = live[:, None] & (lse > float("-inf"))
    p = tl.where(some, tl.exp(s - tl.where(some, lse, 0.0)), 0.0)
    return p * kept, p * (grad_w * kept - delta)


@triton.jit(do_not_specialize=_SEEDS)
def _backward_targets(
    q_ptr, k_ptr, v_ptr, g_ptr, lse_ptr, delta_ptr, grad_q_ptr, grad_bias_ptr,
    row_ptr, bias_ptr, ptr_ptr,
    least, most, drop_below, seed_low, seed_high,
    SCALE: tl.constexpr, KEEP: tl.constexpr,
    HEADS: tl.constexpr, CHANNELS: tl.constexpr,
    HEADS_PAD: tl.constexpr, CHANNELS_PAD: tl.constexpr, BLOCK: tl.constexpr,
    HAS_BIAS: tl.constexpr, DROP: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0)
    first, last = tl.load(ptr_ptr + i), tl.load(ptr_ptr + i + 1)
    if (last - first > least) & (last - first <= most):
        head = tl.arange(0, HEADS_PAD)
        q_i = _row(q_ptr, i, HEADS, CHANNELS, HEADS_PAD, CHANNELS_PAD, SUM) * SCALE
        g_i = _row(g_ptr, i, HEADS, CHANNELS, HEADS_PAD, CHANNELS_PAD, SUM)
        own = i + tl.zeros([1], tl.int32)
        lse = _numbers(lse_ptr, own, own >= 0, HEADS, HEADS_PAD, SUM)
        delta = _numbers(delta_ptr, own, own >= 0, HEADS, HEADS_PAD, SUM)
        grad = tl.zeros([HEADS_PAD, CHANNELS_PAD], SUM)
        for start in range(first, last, BLOCK):
            e = start + tl.arange(0, BLOCK)
            live = e < last
            j = tl.load(row_ptr + e, mask=live, other=0)
            k_j = _tile(k_ptr, j, live, HEADS, CHANNELS, HEADS_PAD, CHANNELS_PAD, SUM)
            v_j = _tile(v_ptr, j, live, HEADS, CHANNELS, HEADS_PAD, CHANNELS_PAD, SUM)
            s = tl.sum(q_i[None, :, :] * k_j, 2)
            if HAS_BIAS:
                s += _numbers(bias_ptr, e, live, HEADS, HEADS_PAD, SUM)
            kept = tl.full([BLOCK, HEADS_PAD], 1.0, SUM)
            if DROP:
                kept = tl.where(_kept(e, head, drop_below, seed_low, seed_high), kept * KEEP, 0.0)
            grad_w = tl.sum(g_i[None, :, :] * v_j, 2)
            _, grad_s = _edge_gradient(s, lse, delta, grad_w, live, kept)
            if HAS_BIAS:
                tl.store(
                    grad_bias_ptr + e.to(tl.int64)[:, None] * HEADS + head[None, :],
                    grad_s.to(grad_bias_ptr.dtype.element_ty),
                    mask=live[:, None] & (head < HEADS)[None, :],
                )
            grad += tl.sum(grad_s[:, :, None] * k_j, 0)
        _store_row(grad_q_ptr, i, grad * SCALE, HEADS, CHANNELS, HEADS_PAD, CHANNELS_PAD)


@triton.jit(do_not_specialize=_SEEDS)
def _backward_sources(
    q_ptr, k_ptr, v_ptr, g_ptr, lse_ptr, delta_ptr, grad_k_ptr, grad_v_ptr,
    col_ptr, edge_ptr, bias_ptr, ptr_ptr,
    least, most, drop_below, seed_low, seed_high,
    SCALE: tl.constexpr, KEEP: tl.constexpr,
    HEADS: tl.constexpr, CHANNELS: tl.constexpr,
    HEADS_PAD: tl.constexpr, CHANNELS_PAD: tl.constexpr, BLOCK: tl.constexpr,
    HAS_BIAS: tl.constexpr, DROP: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    j = tl.program_id(0)
    first, last = tl.load(ptr_ptr + j), tl.load(ptr_ptr + j + 1)
    if (last - first > least) & (last - first <= most):
        head = tl.arange(0, HEADS_PAD)
        k_j = _row(k_ptr, j, HEADS, CHANNELS, HEADS_PAD, CHANNELS_PAD, SUM) * SCALE
        v_j = _row(v_ptr, j, HEADS, CHANNELS, HEADS_PAD, CHANNELS_PAD, SUM)
        grad_k = tl.zeros([HEADS_PAD, CHANNELS_PAD], SUM)
        grad_v = tl.zeros([HEADS_PAD, CHANNELS_PAD], SUM)
        for start in range(first, last, BLOCK):
            t = start + tl.arange(0, BLOCK)
            live = t < last
            i = tl.load(col_ptr + t, mask=live, other=0)
            e = tl.load(edge_ptr + t, mask=live, other=0)
            q_i = _tile(q_ptr, i, live, HEADS, CHANNELS, HEADS_PAD, CHANNELS_PAD, SUM)
            g_i = _tile(g_ptr, i, live, HEADS, CHANNELS, HEADS_PAD, CHANNELS_PAD, SUM)
            s = tl.sum(q_i * k_j[None, :, :], 2)
            if HAS_BIAS:
                s += _numbers(bias_ptr, e, live, HEADS, HEADS_PAD, SUM)
            kept = tl.full([BLOCK, HEADS_PAD], 1.0, SUM)
            if DROP:
                kept = tl.where(_kept(e, head, drop_below, seed_low, seed_high), kept * KEEP, 0.0)
            grad_w = tl.sum(g_i * v_j[None, :, :], 2)
            lse = _numbers(lse_ptr, i, live, HEADS, HEADS_PAD, SUM)
            delta = _numbers(delta_ptr, i, live, HEADS, HEADS_PAD, SUM)
            w, grad_s = _edge_gradient(s, lse, delta, grad_w, live, kept)
            grad_k += tl.sum(grad_s[:, :, None] * q_i, 0)
            grad_v += tl.sum(w[:, :, None] * g_i, 0)
        _store_row(grad_k_ptr, j, grad_k * SCALE, HEADS, CHANNELS, HEADS_PAD, CHANNELS_PAD)
        _store_row(grad_v_ptr, j, grad_v, HEADS, CHANNELS, HEADS_PAD, CHANNELS_PAD)
