"""Attention with a bias of pairs on CUDA, in tiles: no matrix ``[L, L]`` of a head is ever there.

The bias is read where it is: a table of the numbers of known pairs, which all heads share, and the
values of those pairs. A pair has one number for each of its two directions, so each gradient of a
value is written once, without atomics, and the two are added afterwards. Sums are in float32.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from spatiagraph.kernels._random import split_seed, threshold
from spatiagraph.kernels._triton import _mix

FAR, NONE = -1, -2
"""Entries of the table: a pair whose distance is not known, and one that has no bias."""

TILE = 64  # rows and columns of a tile
_WIDEST = 128  # channels of a gradient that a program holds
_SEEDS = ["drop_below", "seed_low", "seed_high"]


class PairAttention(torch.autograd.Function):
    """``softmax(scale · q kᵀ + bias) v`` with the bias of a table; saves output and log-sum-exp."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        value: Tensor,
        far: Tensor,
        index: Tensor,
        length: Tensor,
        scale: float,
        dropout: float,
        seed: Tensor | None,
    ) -> Tensor:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        by_head, far = value.float().T.contiguous(), far.float().contiguous()  # [H, E], [H]
        out = torch.empty_like(v)
        lse = v.new_empty(v.shape[:3], dtype=torch.float32)
        given = _arguments(q, v, by_head, far, index, length, scale, dropout, seed)
        _launch(_forward, q, given, q_ptr=q, k_ptr=k, v_ptr=v, out_ptr=out, lse_ptr=lse)
        ctx.save_for_backward(q, k, v, by_head, far, index, length, out, lse)
        ctx.options = scale, dropout, seed, value.dtype
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        q, k, v, by_head, far, index, length, out, lse = ctx.saved_tensors
        scale, dropout, seed, dtype = ctx.options
        grad = grad.contiguous()
        delta = (grad.float() * out.float()).sum(3)
        batch, heads, num, width = q.shape
        num_pairs = by_head.size(1)
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        both = by_head.new_zeros(heads, 2 * num_pairs)
        blocks = triton.cdiv(num, TILE)
        parts = by_head.new_zeros(batch, heads, blocks)
        given = _arguments(q, v, by_head, far, index, length, scale, dropout, seed)
        shared = {
            "q_ptr": q, "k_ptr": k, "v_ptr": v, "g_ptr": grad, "lse_ptr": lse, "delta_ptr": delta,
        }  # fmt: skip
        chunks = triton.cdiv(width, min(_padded(width), _WIDEST))
        more = {"chunks": chunks, "GRAD_WIDTH": min(_padded(width), _WIDEST)}
        _launch(
            _backward_rows, q, given, **shared, **more,
            grad_q_ptr=grad_q, grad_value_ptr=both, grad_far_ptr=parts,
        )  # fmt: skip
        _launch(_backward_columns, q, given, **shared, **more, grad_k_ptr=grad_k, grad_v_ptr=grad_v)
        grad_value = (both[:, :num_pairs] + both[:, num_pairs:]).T.to(dtype)
        nothing = (None,) * 5
        return grad_q, grad_k, grad_v, grad_value, parts.sum((0, 2)).to(dtype), *nothing


def _padded(width: int) -> int:
    """Width of a tile: a power of two, of which products take 16 at least."""
    return max(16, int(triton.next_power_of_2(width)))


def _arguments(
    q: Tensor,
    v: Tensor,
    value: Tensor,
    far: Tensor,
    index: Tensor,
    length: Tensor,
    scale: float,
    dropout: float,
    seed: Tensor | None,
) -> dict[str, Any]:
    low, high = split_seed(seed)
    exact = q.dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"
    return {
        "value_ptr": value, "far_ptr": far, "index_ptr": index, "length_ptr": length,
        "num": q.size(2), "num_pairs": value.size(1), "scale": scale,
        "drop_below": threshold(dropout), "seed_low": low, "seed_high": high,
        "KEEP": 1.0 / (1.0 - dropout), "DROP": dropout > 0.0, "HEADS": q.size(1),
        "WIDTH": q.size(3), "STEP": min(_padded(q.size(3)), 64), "CHANNELS": v.size(3),
        "CHANNELS_PAD": _padded(v.size(3)), "ROWS": TILE, "COLUMNS": TILE,
        "PRECISION": "ieee" if exact else "tf32",
    }  # fmt: skip


def _launch(kernel: Any, q: Tensor, given: dict[str, Any], *, chunks: int = 1, **more: Any) -> None:
    batch, heads, num, _ = q.shape
    if q.numel():
        kernel[(triton.cdiv(num, TILE), batch * heads, chunks)](**given, **more, num_warps=4)


@triton.jit
def _kept(place, head, drop_below, seed_low, seed_high):
    """The bits of :func:`spatiagraph.kernels._random.keep_scale` for numbers of pairs of nodes."""
    low, high = tl.cast(seed_low, tl.uint32), tl.cast(seed_high, tl.uint32)
    step = tl.cast(head, tl.uint32) * tl.full([], 0x9E3779B9, tl.uint32)
    bits = _mix((_mix(place.to(tl.uint32) ^ low) + step) ^ high)
    return bits >= tl.cast(drop_below, tl.uint32)


@triton.jit
def _scores(
    q_ptr, k_ptr, index_ptr, value_ptr, far, i, j, num, num_pairs, scale,
    WIDTH: tl.constexpr, STEP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Scores of a tile, and the numbers of its pairs; pointers are those of a head."""
    s = tl.zeros([ROWS, COLUMNS], tl.float32)
    for first in tl.static_range(0, WIDTH, STEP):
        c = first + tl.arange(0, STEP)
        q = tl.load(
            q_ptr + i[:, None] * WIDTH + c[None, :], (i < num)[:, None] & (c < WIDTH)[None, :], 0.0
        )
        k = tl.load(
            k_ptr + j[None, :] * WIDTH + c[:, None], (j < num)[None, :] & (c < WIDTH)[:, None], 0.0
        )
        s += tl.dot(q, k, input_precision=PRECISION)
    inside = (i < num)[:, None] & (j < num)[None, :]
    e = tl.load(index_ptr + i[:, None].to(tl.int64) * num + j[None, :], inside, -2)
    row = tl.where(e >= num_pairs, e - num_pairs, e)
    bias = tl.load(value_ptr + row, e >= 0, 0.0)
    return s * scale + tl.where(e == -1, far, bias), e


@triton.jit(do_not_specialize=_SEEDS)
def _forward(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, value_ptr, far_ptr, index_ptr, length_ptr,
    num, num_pairs, scale, drop_below, seed_low, seed_high,
    KEEP: tl.constexpr, DROP: tl.constexpr, HEADS: tl.constexpr, WIDTH: tl.constexpr,
    STEP: tl.constexpr, CHANNELS: tl.constexpr, CHANNELS_PAD: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    block, at = tl.program_id(0), tl.program_id(1).to(tl.int64)
    slice_, head = at // HEADS, at % HEADS
    i, d = block * ROWS + tl.arange(0, ROWS), tl.arange(0, CHANNELS_PAD)
    length, far = tl.load(length_ptr + slice_), tl.load(far_ptr + head)
    peak = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    out = tl.zeros([ROWS, CHANNELS_PAD], tl.float32)
    for first in range(0, length, COLUMNS):
        j = first + tl.arange(0, COLUMNS)
        s, _ = _scores(
            q_ptr + at * num * WIDTH, k_ptr + at * num * WIDTH, index_ptr + slice_ * num * num,
            value_ptr + head * num_pairs, far, i, j, num, num_pairs, scale,
            WIDTH, STEP, ROWS, COLUMNS, PRECISION,
        )  # fmt: skip
        s = tl.where((j < length)[None, :], s, float("-inf"))
        higher = tl.maximum(peak, tl.max(s, 1))
        p, old = tl.exp(s - higher[:, None]), tl.exp(peak - higher)
        total = total * old + tl.sum(p, 1)
        if DROP:
            place = (slice_ * num + i[:, None]) * num + j[None, :]
            p = tl.where(_kept(place, head, drop_below, seed_low, seed_high), p * KEEP, 0.0)
        v = tl.load(
            v_ptr + at * num * CHANNELS + j[:, None] * CHANNELS + d[None, :],
            (j < num)[:, None] & (d < CHANNELS)[None, :], 0.0,
        )  # fmt: skip
        out = out * old[:, None] + tl.dot(p.to(v.dtype), v, input_precision=PRECISION)
        peak = higher
    inside = (i < num)[:, None] & (d < CHANNELS)[None, :]
    place = out_ptr + at * num * CHANNELS + i[:, None] * CHANNELS + d[None, :]
    tl.store(place, (out / total[:, None]).to(out_ptr.dtype.element_ty), inside)
    tl.store(lse_ptr + at * num + i, peak + tl.log(total), i < num)


@triton.jit
def _gradients(
    q_ptr, k_ptr, v_ptr, g_ptr, lse_ptr, delta_ptr, index_ptr, value_ptr, far, i, j, at, slice_,
    head, length, num, num_pairs, scale, drop_below, seed_low, seed_high,
    KEEP: tl.constexpr, DROP: tl.constexpr, WIDTH: tl.constexpr, STEP: tl.constexpr,
    CHANNELS: tl.constexpr, CHANNELS_PAD: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Attention of a tile after dropout, gradients of its scores, numbers of its pairs, and g."""
    d = tl.arange(0, CHANNELS_PAD)
    s, e = _scores(
        q_ptr + at * num * WIDTH, k_ptr + at * num * WIDTH, index_ptr + slice_ * num * num,
        value_ptr + head * num_pairs, far, i, j, num, num_pairs, scale,
        WIDTH, STEP, ROWS, COLUMNS, PRECISION,
    )  # fmt: skip
    lse = tl.load(lse_ptr + at * num + i, i < num, 0.0)
    delta = tl.load(delta_ptr + at * num + i, i < num, 0.0)
    inside = (i < num)[:, None] & (j < length)[None, :]
    p = tl.where(inside, tl.exp(s - lse[:, None]), 0.0)
    g = tl.load(
        g_ptr + at * num * CHANNELS + i[:, None] * CHANNELS + d[None, :],
        (i < num)[:, None] & (d < CHANNELS)[None, :], 0.0,
    )  # fmt: skip
    v = tl.load(
        v_ptr + at * num * CHANNELS + j[None, :] * CHANNELS + d[:, None],
        (j < num)[None, :] & (d < CHANNELS)[:, None], 0.0,
    )  # fmt: skip
    change = tl.dot(g, v, input_precision=PRECISION)
    kept = p
    if DROP:
        place = (slice_ * num + i[:, None]) * num + j[None, :]
        keep = _kept(place, head, drop_below, seed_low, seed_high)
        change, kept = tl.where(keep, change * KEEP, 0.0), tl.where(keep, p * KEEP, 0.0)
    return kept, p * (change - delta[:, None]), e, g


@triton.jit(do_not_specialize=_SEEDS)
def _backward_rows(
    q_ptr, k_ptr, v_ptr, g_ptr, lse_ptr, delta_ptr, grad_q_ptr, grad_value_ptr, grad_far_ptr,
    value_ptr, far_ptr, index_ptr, length_ptr,
    num, num_pairs, scale, drop_below, seed_low, seed_high,
    KEEP: tl.constexpr, DROP: tl.constexpr, HEADS: tl.constexpr, WIDTH: tl.constexpr,
    STEP: tl.constexpr, CHANNELS: tl.constexpr, CHANNELS_PAD: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, PRECISION: tl.constexpr, GRAD_WIDTH: tl.constexpr,
):  # fmt: skip
    block, at, chunk = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2)
    slice_, head = at // HEADS, at % HEADS
    i, c = block * ROWS + tl.arange(0, ROWS), chunk * GRAD_WIDTH + tl.arange(0, GRAD_WIDTH)
    length, far = tl.load(length_ptr + slice_), tl.load(far_ptr + head)
    grad_q = tl.zeros([ROWS, GRAD_WIDTH], tl.float32)
    grad_far = tl.zeros([ROWS], tl.float32)
    for first in range(0, length, COLUMNS):
        j = first + tl.arange(0, COLUMNS)
        _, ds, e, _ = _gradients(
            q_ptr, k_ptr, v_ptr, g_ptr, lse_ptr, delta_ptr, index_ptr, value_ptr, far, i, j, at,
            slice_, head, length, num, num_pairs, scale, drop_below, seed_low, seed_high,
            KEEP, DROP, WIDTH, STEP, CHANNELS, CHANNELS_PAD, ROWS, COLUMNS, PRECISION,
        )  # fmt: skip
        if chunk == 0:
            tl.store(grad_value_ptr + head * 2 * num_pairs + e, ds, e >= 0)
            grad_far += tl.sum(tl.where(e == -1, ds, 0.0), 1)
        k = tl.load(
            k_ptr + at * num * WIDTH + j[:, None] * WIDTH + c[None, :],
            (j < num)[:, None] & (c < WIDTH)[None, :], 0.0,
        )  # fmt: skip
        grad_q += tl.dot(ds.to(k.dtype), k, input_precision=PRECISION)
    inside = (i < num)[:, None] & (c < WIDTH)[None, :]
    place = grad_q_ptr + at * num * WIDTH + i[:, None] * WIDTH + c[None, :]
    tl.store(place, (grad_q * scale).to(grad_q_ptr.dtype.element_ty), inside)
    if chunk == 0:
        tl.store(grad_far_ptr + at * tl.num_programs(0) + block, tl.sum(grad_far, 0))


@triton.jit(do_not_specialize=_SEEDS)
def _backward_columns(
    q_ptr, k_ptr, v_ptr, g_ptr, lse_ptr, delta_ptr, grad_k_ptr, grad_v_ptr,
    value_ptr, far_ptr, index_ptr, length_ptr,
    num, num_pairs, scale, drop_below, seed_low, seed_high,
    KEEP: tl.constexpr, DROP: tl.constexpr, HEADS: tl.constexpr, WIDTH: tl.constexpr,
    STEP: tl.constexpr, CHANNELS: tl.constexpr, CHANNELS_PAD: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, PRECISION: tl.constexpr, GRAD_WIDTH: tl.constexpr,
):  # fmt: skip
    block, at, chunk = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2)
    slice_, head = at // HEADS, at % HEADS
    j, c = block * COLUMNS + tl.arange(0, COLUMNS), chunk * GRAD_WIDTH + tl.arange(0, GRAD_WIDTH)
    d = tl.arange(0, CHANNELS_PAD)
    length, far = tl.load(length_ptr + slice_), tl.load(far_ptr + head)
    grad_k = tl.zeros([COLUMNS, GRAD_WIDTH], tl.float32)
    grad_v = tl.zeros([COLUMNS, CHANNELS_PAD], tl.float32)
    for first in range(0, num, ROWS):
        i = first + tl.arange(0, ROWS)
        kept, ds, _, g = _gradients(
            q_ptr, k_ptr, v_ptr, g_ptr, lse_ptr, delta_ptr, index_ptr, value_ptr, far, i, j, at,
            slice_, head, length, num, num_pairs, scale, drop_below, seed_low, seed_high,
            KEEP, DROP, WIDTH, STEP, CHANNELS, CHANNELS_PAD, ROWS, COLUMNS, PRECISION,
        )  # fmt: skip
        if chunk == 0:
            grad_v += tl.dot(tl.trans(kept.to(g.dtype)), g, input_precision=PRECISION)
        q = tl.load(
            q_ptr + at * num * WIDTH + i[:, None] * WIDTH + c[None, :],
            (i < num)[:, None] & (c < WIDTH)[None, :], 0.0,
        )  # fmt: skip
        grad_k += tl.dot(tl.trans(ds.to(q.dtype)), q, input_precision=PRECISION)
    inside = (j < num)[:, None] & (c < WIDTH)[None, :]
    place = grad_k_ptr + at * num * WIDTH + j[:, None] * WIDTH + c[None, :]
    tl.store(place, (grad_k * scale).to(grad_k_ptr.dtype.element_ty), inside)
    if chunk == 0:
        inside = (j < num)[:, None] & (d < CHANNELS)[None, :]
        place = grad_v_ptr + at * num * CHANNELS + j[:, None] * CHANNELS + d[None, :]
        tl.store(place, grad_v.to(grad_v_ptr.dtype.element_ty), inside)
