"""Neighbour attention and segment sums on CPU, in float32 and float64, compiled by numba.

Threads share out the rows and each row is summed by one of them in the order of its edges, so the
result does not depend on the number of threads. Heads of a node lie side by side: ``C = H · D``.
Rows of more than ``MAX_DEGREE`` edges are cut into blocks that are attended to as rows of their own
and put together by their log-sum-exp, so that one tissue node with a million cells uses all cores.
"""

import logging
import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from spatiagraph.kernels._random import HEAD_STEP, MULTIPLIER_A, MULTIPLIER_B, split_seed, threshold
from spatiagraph.kernels._simd import dot, weighted_sum

logger = logging.getLogger(__name__)

MAX_DEGREE = 16384
BLOCK = 4096
CHUNKS_PER_THREAD = 16

# sums may be reordered for SIMD (once, at compile time); infinities keep their meaning
_FAST = {"reassoc", "contract", "arcp", "nsz"}
_HEAD_STEP, _MULTIPLIER_A, _MULTIPLIER_B = map(np.uint32, (HEAD_STEP, MULTIPLIER_A, MULTIPLIER_B))


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
    options = _options(q, bias, dropout, seed)

    def rows(q: Tensor, ptr: Tensor, max_degree: int) -> tuple[Tensor, Tensor]:
        out, lse = torch.empty_like(q), q.new_empty(q.shape[:2])
        _run(_forward, q, k, v, out, lse, ptr, row, max_degree, *options)
        return out, lse

    out, lse = rows(q, colptr, MAX_DEGREE)
    for i, ptr in _large_rows(colptr):
        part, part_lse = rows(q[i].repeat(ptr.numel() - 1, 1, 1), ptr, BLOCK)
        lse[i] = part_lse.logsumexp(0)
        out[i] = ((part_lse - lse[i]).exp().nan_to_num(0.0).unsqueeze(-1) * part).sum(0)
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
    delta = torch.empty_like(lse)
    _run(_row_dots, g, out.contiguous(), delta)
    if grad_lse is not None:
        delta -= grad_lse
    options = _options(q, bias, dropout, seed)
    grad_bias = q.new_empty((0, q.size(1))) if bias is None else torch.empty_like(bias)

    def targets(q: Tensor, g: Tensor, lse: Tensor, delta: Tensor, ptr: Tensor, largest: int) -> Any:
        grad_q = torch.empty_like(q)
        _run(
            _backward_targets,
            q,
            k,
            v,
            g,
            lse,
            delta,
            grad_q,
            grad_bias,
            ptr,
            row,
            largest,
            *options,
        )
        return grad_q

    def sources(k: Tensor, v: Tensor, ptr: Tensor, largest: int) -> tuple[Tensor, Tensor]:
        grad_k, grad_v = torch.empty_like(k), torch.empty_like(v)
        _run(
            _backward_sources,
            q, k, v, g, lse, delta, grad_k, grad_v, ptr, col, edge, largest, *options,
        )  # fmt: skip
        return grad_k, grad_v

    grad_q = targets(q, g, lse, delta, colptr, MAX_DEGREE)
    for i, ptr in _large_rows(colptr):
        blocks = [x[i].repeat(ptr.numel() - 1, *[1] * (x.dim() - 1)) for x in (q, g, lse, delta)]
        grad_q[i] = targets(*blocks, ptr, BLOCK).sum(0)
    grad_k, grad_v = sources(k, v, rowptr, MAX_DEGREE)
    for j, ptr in _large_rows(rowptr):
        blocks = [x[j].repeat(ptr.numel() - 1, 1, 1) for x in (k, v)]
        grad_k[j], grad_v[j] = (x.sum(0) for x in sources(*blocks, ptr, BLOCK))
    return grad_q, grad_k, grad_v, grad_bias


def segment_sum(x: Tensor, ptr: Tensor) -> Tensor:
    """Sum of the rows of each segment of ``x [E, ...]``, ``[S, ...]``."""
    out = x.new_empty((ptr.numel() - 1, *x.shape[1:]))
    flat = x.contiguous().view(x.size(0), out[:1].numel() if len(out) else 0)
    if out.numel():
        _run(_segment_sum, flat, ptr, out.view(out.size(0), -1), _chunks())
    return out


def transpose(colptr: Tensor, row: Tensor, num_sources: int) -> tuple[Tensor, Tensor, Tensor]:
    """Edges by source, by counting; the same as a stable sort."""
    rowptr = row.new_empty(num_sources + 1)
    col, edge = torch.empty_like(row), torch.empty_like(row)
    _run(_transpose, colptr, row, rowptr, col, edge)
    return rowptr, col, edge


def _large_rows(ptr: Tensor) -> list[tuple[int, Tensor]]:
    """Rows of more than ``MAX_DEGREE`` edges, each with the bounds of its blocks."""
    bounds = ptr.numpy()
    large = np.flatnonzero(np.diff(bounds) > MAX_DEGREE)
    return [
        (int(i), torch.tensor([*range(bounds[i], bounds[i + 1], BLOCK), bounds[i + 1]]).to(ptr))
        for i in large
    ]


def _options(q: Tensor, bias: Tensor | None, dropout: float, seed: Tensor | None) -> tuple:
    """What the kernels take last: bias, scale and dropout."""
    number = q.numpy().dtype.type
    low, high = split_seed(seed)
    return (
        q.new_empty((0, q.size(1))) if bias is None else bias.contiguous(),
        bias is not None,
        number(1.0 / math.sqrt(q.size(-1))),
        np.uint32(threshold(dropout)),
        number(1.0 / (1.0 - dropout)),
        np.uint32(low),
        np.uint32(high),
        _chunks(),
    )


def _chunks() -> int:
    """Pieces of work, several per thread so that none waits long for the others."""
    return CHUNKS_PER_THREAD * _threads()


def _threads() -> int:
    """As many threads as torch uses."""
    return min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)


def _run(kernel: Callable[..., None], *args: Any) -> None:
    """Call a kernel on as many threads as torch uses; say so when it must be compiled first."""
    arrays = [_flat(x) if isinstance(x, Tensor) else x for x in args]
    if not kernel.signatures:  # type: ignore[attr-defined]
        name = kernel.__name__.strip("_")
        logger.info("compiling the CPU kernel %r: first call only, then kept on disk", name)
    threads = numba.get_num_threads()
    numba.set_num_threads(_threads())
    try:
        kernel(*arrays)
    finally:
        numba.set_num_threads(threads)


def _flat(x: Tensor) -> np.ndarray:
    """The same memory, heads and channels merged: ``[N, H, D]`` as ``[N, C]``."""
    return (x.detach().flatten(1) if x.dim() == 3 else x.detach()).numpy()


def _inner(function: Callable[..., Any]) -> Callable[..., Any]:
    return njit(fastmath=_FAST, error_model="numpy")(function)


def _outer(function: Callable[..., None]) -> Callable[..., None]:
    return njit(parallel=True, cache=True, error_model="numpy")(function)


@_inner
def _mix(x):  # type: ignore[no-untyped-def]
    x = np.uint32(x ^ (x >> np.uint32(16)))
    x = np.uint32(x * _MULTIPLIER_A)
    x = np.uint32(x ^ (x >> np.uint32(15)))
    x = np.uint32(x * _MULTIPLIER_B)
    return np.uint32(x ^ (x >> np.uint32(16)))


@_inner
def _kept(edge, head, drop_below, low, high):  # type: ignore[no-untyped-def]
    """The same bits as :func:`spatiagraph.kernels._random.keep_scale`."""
    bits = np.uint32(_mix(np.uint32(edge) ^ low) + np.uint32(np.uint32(head) * _HEAD_STEP))
    return _mix(bits ^ high) >= drop_below


@_inner
def _bound(ptr, chunk, num_chunks):  # type: ignore[no-untyped-def]
    """First row of a chunk, so that all chunks hold about as many rows + edges."""
    rows = ptr.size - 1
    goal = (rows + ptr[rows]) * chunk // num_chunks
    low, high = 0, rows
    while low < high:
        middle = (low + high) // 2
        if middle + ptr[middle] < goal:
            low = middle + 1
        else:
            high = middle
    return low


@_inner
def _longest(first, last, ptr, max_degree):  # type: ignore[no-untyped-def]
    """Most edges of any row that is not cut into blocks."""
    longest = 0
    for i in range(first, last):
        degree = ptr[i + 1] - ptr[i]
        if degree <= max_degree:
            longest = max(longest, degree)
    return longest


@_inner
def _forward_rows(  # type: ignore[no-untyped-def]
    first, last, q, k, v, out, lse, ptr, row, max_degree,
    bias, has_bias, scale, drop_below, keep, low, high,
):  # fmt: skip
    heads = lse.shape[1]
    channels = q.shape[1] // heads
    zero, least = q.dtype.type(0), q.dtype.type(-np.inf)
    weight = np.empty((_longest(first, last, ptr, max_degree), heads), q.dtype)
    for i in range(first, last):
        start, degree = ptr[i], ptr[i + 1] - ptr[i]
        lse[i, :] = least
        if degree > max_degree:
            continue
        for t in range(degree):
            j = row[start + t]
            for h in range(heads):
                weight[t, h] = dot(q, i, k, j, h * channels, channels) * scale
        if has_bias:
            for t in range(degree):
                for h in range(heads):
                    weight[t, h] += bias[start + t, h]
        for h in range(heads):
            peak = least
            for t in range(degree):
                peak = max(peak, weight[t, h])
            if peak == least:  # no edge, or all hidden
                for t in range(degree):
                    weight[t, h] = zero
                continue
            total = zero
            for t in range(degree):
                p = math.exp(weight[t, h] - peak)
                weight[t, h] = p
                total += p
            lse[i, h] = peak + math.log(total)
            normalise = q.dtype.type(1) / total
            for t in range(degree):
                weight[t, h] *= normalise
            if drop_below > 0:
                for t in range(degree):
                    weight[t, h] *= keep if _kept(start + t, h, drop_below, low, high) else zero
        for h in range(heads):
            weighted_sum(out, i, v, row, start, weight, degree, h, channels)


@_outer
def _forward(  # type: ignore[no-untyped-def]
    q, k, v, out, lse, ptr, row, max_degree,
    bias, has_bias, scale, drop_below, keep, low, high, chunks,
):  # fmt: skip
    for chunk in prange(chunks):
        _forward_rows(
            _bound(ptr, chunk, chunks), _bound(ptr, chunk + 1, chunks),
            q, k, v, out, lse, ptr, row, max_degree,
            bias, has_bias, scale, drop_below, keep, low, high,
        )  # fmt: skip


@_inner
def _edge_gradient(  # type: ignore[no-untyped-def]
    q, k, v, g, i, j, lse, delta, bias, scale, start, channels, kept
):
    """Softmax weight after dropout, and gradient of the score, of one edge and head."""
    s = dot(q, i, k, j, start, channels) * scale + bias
    p = math.exp(s - lse) if lse > -np.inf else q.dtype.type(0)
    return p * kept, p * (dot(g, i, v, j, start, channels) * kept - delta)


@_inner
def _target_rows(  # type: ignore[no-untyped-def]
    first, last, q, k, v, g, lse, delta, grad_q, grad_bias, ptr, row, max_degree,
    bias, has_bias, scale, drop_below, keep, low, high,
):  # fmt: skip
    heads = lse.shape[1]
    channels = q.shape[1] // heads
    zero, one = q.dtype.type(0), q.dtype.type(1)
    through = np.empty((_longest(first, last, ptr, max_degree), heads), q.dtype)
    for i in range(first, last):
        start, degree = ptr[i], ptr[i + 1] - ptr[i]
        if degree > max_degree:
            continue
        for t in range(degree):
            e, j = start + t, row[start + t]
            for h in range(heads):
                kept = one
                if drop_below > 0:
                    kept = keep if _kept(e, h, drop_below, low, high) else zero
                _, grad_s = _edge_gradient(
                    q, k, v, g, i, j, lse[i, h], delta[i, h],
                    bias[e, h] if has_bias else zero, scale, h * channels, channels, kept,
                )  # fmt: skip
                if has_bias:
                    grad_bias[e, h] = grad_s
                through[t, h] = grad_s * scale
        for h in range(heads):
            weighted_sum(grad_q, i, k, row, start, through, degree, h, channels)


@_outer
def _backward_targets(  # type: ignore[no-untyped-def]
    q, k, v, g, lse, delta, grad_q, grad_bias, ptr, row, max_degree,
    bias, has_bias, scale, drop_below, keep, low, high, chunks,
):  # fmt: skip
    for chunk in prange(chunks):
        _target_rows(
            _bound(ptr, chunk, chunks), _bound(ptr, chunk + 1, chunks),
            q, k, v, g, lse, delta, grad_q, grad_bias, ptr, row, max_degree,
            bias, has_bias, scale, drop_below, keep, low, high,
        )  # fmt: skip


@_inner
def _source_rows(  # type: ignore[no-untyped-def]
    first, last, q, k, v, g, lse, delta, grad_k, grad_v, ptr, col, edge, max_degree,
    bias, has_bias, scale, drop_below, keep, low, high,
):  # fmt: skip
    heads = lse.shape[1]
    channels = q.shape[1] // heads
    zero, one = q.dtype.type(0), q.dtype.type(1)
    longest = _longest(first, last, ptr, max_degree)
    weight, through = np.empty((longest, heads), q.dtype), np.empty((longest, heads), q.dtype)
    for j in range(first, last):
        start, degree = ptr[j], ptr[j + 1] - ptr[j]
        if degree > max_degree:
            continue
        for t in range(degree):
            i, e = col[start + t], edge[start + t]
            for h in range(heads):
                kept = one
                if drop_below > 0:
                    kept = keep if _kept(e, h, drop_below, low, high) else zero
                weight[t, h], grad_s = _edge_gradient(
                    q, k, v, g, i, j, lse[i, h], delta[i, h],
                    bias[e, h] if has_bias else zero, scale, h * channels, channels, kept,
                )  # fmt: skip
                through[t, h] = grad_s * scale
        for h in range(heads):
            weighted_sum(grad_k, j, q, col, start, through, degree, h, channels)
            weighted_sum(grad_v, j, g, col, start, weight, degree, h, channels)


@_outer
def _backward_sources(  # type: ignore[no-untyped-def]
    q, k, v, g, lse, delta, grad_k, grad_v, ptr, col, edge, max_degree,
    bias, has_bias, scale, drop_below, keep, low, high, chunks,
):  # fmt: skip
    for chunk in prange(chunks):
        _source_rows(
            _bound(ptr, chunk, chunks), _bound(ptr, chunk + 1, chunks),
            q, k, v, g, lse, delta, grad_k, grad_v, ptr, col, edge, max_degree,
            bias, has_bias, scale, drop_below, keep, low, high,
        )  # fmt: skip


@_inner
def _row_dot(a, b, i, out):  # type: ignore[no-untyped-def]
    channels = a.shape[1] // out.shape[1]
    for h in range(out.shape[1]):
        out[i, h] = dot(a, i, b, i, h * channels, channels)


@_outer
def _row_dots(a, b, out):  # type: ignore[no-untyped-def]
    for i in prange(a.shape[0]):
        _row_dot(a, b, i, out)


@_inner
def _segment_rows(first, last, x, ptr, out):  # type: ignore[no-untyped-def]
    for i in range(first, last):
        out[i, :] = x.dtype.type(0)
        for e in range(ptr[i], ptr[i + 1]):
            for c in range(x.shape[1]):
                out[i, c] += x[e, c]


@_outer
def _segment_sum(x, ptr, out, chunks):  # type: ignore[no-untyped-def]
    for chunk in prange(chunks):
        _segment_rows(_bound(ptr, chunk, chunks), _bound(ptr, chunk + 1, chunks), x, ptr, out)


@njit(cache=True)
def _transpose(colptr, row, rowptr, col, edge):  # type: ignore[no-untyped-def]
    rowptr[:] = 0
    for e in range(row.size):
        rowptr[row[e] + 1] += 1
    for j in range(rowptr.size - 1):
        rowptr[j + 1] += rowptr[j]
    place = rowptr[:-1].copy()
    for i in range(colptr.size - 1):
        for e in range(colptr[i], colptr[i + 1]):
            at = place[row[e]]
            place[row[e]] += 1
            col[at], edge[at] = i, e
