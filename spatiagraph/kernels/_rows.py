"""Neighbour attention and segment sums row by row, compiled by numba.

A chunk of rows belongs to one thread, and each row is summed in the order of its edges, so results
do not depend on the number of threads. Node features are flat arrays with the distance of two rows
beside them, so that parts of a joint projection need not be copied. Heads of a row lie side by
side, ``channels`` numbers each. Rows of more than ``max_degree`` edges are left out.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, prange

from spatiagraph.kernels._random import HEAD_STEP, MULTIPLIER_A, MULTIPLIER_B
from spatiagraph.kernels._simd import (
    PAD,
    dot,
    dots,
    edge_gradients,
    exp_and_sum,
    scale_and_peak,
    weighted_sum,
)

_HEAD_STEP, _MULTIPLIER_A, _MULTIPLIER_B = map(np.uint32, (HEAD_STEP, MULTIPLIER_A, MULTIPLIER_B))


def _inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """Without ``fastmath``: reordering would break the rounding tricks of the intrinsics."""
    return njit(error_model="numpy")(function)


def _outer(function: Callable[..., None]) -> Callable[..., None]:
    return njit(parallel=True, cache=True, error_model="numpy")(function)


@_outer
def forward(
    q, q_step, k, k_step, v, v_step, out, lse, ptr, row, max_degree, channels,
    bias, scale, drop_below, keep, low, high, chunks,
):  # fmt: skip
    """Output and log-sum-exp of each target."""
    for chunk in prange(chunks):
        _forward_rows(
            _bound(ptr, chunk, chunks), _bound(ptr, chunk + 1, chunks),
            q, q_step, k, k_step, v, v_step, out, lse, ptr, row, max_degree, channels,
            bias, scale, drop_below, keep, low, high,
        )  # fmt: skip


@_outer
def backward_targets(
    q, q_step, k, k_step, v, v_step, g, g_step, out, lse, grad_lse, stats, grad_q, grad_q_step,
    grad_bias, ptr, row, max_degree, channels, bias, scale, drop_below, keep, low, high, chunks,
):  # fmt: skip
    """Gradients of queries and bias; ``stats [M, 2 H]`` of each target is reused by the sources."""
    for chunk in prange(chunks):
        _target_rows(
            _bound(ptr, chunk, chunks), _bound(ptr, chunk + 1, chunks),
            q, q_step, k, k_step, v, v_step, g, g_step, out, lse, grad_lse, stats,
            grad_q, grad_q_step, grad_bias, ptr, row, max_degree, channels,
            bias, scale, drop_below, keep, low, high,
        )  # fmt: skip


@_outer
def backward_sources(
    q, q_step, k, k_step, v, v_step, g, g_step, stats, grad_k, grad_k_step, grad_v, grad_v_step,
    ptr, col, edge, max_degree, channels, bias, scale, drop_below, keep, low, high, chunks,
):  # fmt: skip
    """Gradients of keys and values."""
    for chunk in prange(chunks):
        _source_rows(
            _bound(ptr, chunk, chunks), _bound(ptr, chunk + 1, chunks),
            q, q_step, k, k_step, v, v_step, g, g_step, stats,
            grad_k, grad_k_step, grad_v, grad_v_step, ptr, col, edge, max_degree, channels,
            bias, scale, drop_below, keep, low, high,
        )  # fmt: skip


@_outer
def segment_sum(x, ptr, out, chunks):
    """Sum of rows ``ptr[i]:ptr[i + 1]`` of ``x [E, C]`` in row ``i`` of ``out``."""
    for chunk in prange(chunks):
        _segment_rows(_bound(ptr, chunk, chunks), _bound(ptr, chunk + 1, chunks), x, ptr, out)


@njit(cache=True)
def transpose(colptr, row, rowptr, col, edge):
    """Edges by source, by counting."""
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


@_inner
def _bound(ptr, chunk, num_chunks):
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
def _room(first, last, ptr, max_degree):
    """Numbers that the edges of any row need, in whole vectors."""
    longest = 0
    for i in range(first, last):
        degree = ptr[i + 1] - ptr[i]
        if degree <= max_degree:
            longest = max(longest, degree)
    return (longest + PAD - 1) // PAD * PAD


@_inner
def _mix(x):
    x = np.uint32(x ^ (x >> np.uint32(16)))
    x = np.uint32(x * _MULTIPLIER_A)
    x = np.uint32(x ^ (x >> np.uint32(15)))
    x = np.uint32(x * _MULTIPLIER_B)
    return np.uint32(x ^ (x >> np.uint32(16)))


@_inner
def _kept(edge, head, drop_below, low, high):
    """The same bits as :func:`spatiagraph.kernels._random.keep_scale`."""
    bits = np.uint32(_mix(np.uint32(edge) ^ low) + np.uint32(np.uint32(head) * _HEAD_STEP))
    return _mix(bits ^ high) >= drop_below


@_inner
def _forward_rows(
    first, last, q, q_step, k, k_step, v, v_step, out, lse, ptr, row, max_degree, channels,
    bias, scale, drop_below, keep, low, high,
):  # fmt: skip
    heads = lse.shape[1]
    zero, one, least = q.dtype.type(0), q.dtype.type(1), q.dtype.type(-np.inf)
    s = np.empty(_room(first, last, ptr, max_degree), q.dtype)
    for i in range(first, last):
        start, degree = ptr[i], ptr[i + 1] - ptr[i]
        if degree > max_degree:
            continue
        for h in range(heads):
            at = h * channels
            dots(s, q, i * q_step + at, k, k_step, at, row, start, degree, channels)
            factor = scale
            if bias.size > 0:
                factor = one
                for t in range(degree):
                    s[t] = s[t] * scale + bias[(start + t) * heads + h]
            peak = scale_and_peak(s, degree, factor)
            lse[i, h] = least
            normalise, length = zero, 0
            if peak > least:  # there is an edge, and not all are hidden
                total = exp_and_sum(s, degree, peak)
                lse[i, h] = peak + math.log(total)
                normalise, length = one / total, degree
                if drop_below > 0:
                    for t in range(degree):
                        s[t] *= keep if _kept(start + t, h, drop_below, low, high) else zero
            weighted_sum(
                out, (i * heads + h) * channels, v, v_step, at, row, start, s, length,
                channels, normalise,
            )  # fmt: skip


@_inner
def _target_rows(
    first, last, q, q_step, k, k_step, v, v_step, g, g_step, out, lse, grad_lse, stats,
    grad_q, grad_q_step, grad_bias, ptr, row, max_degree, channels,
    bias, scale, drop_below, keep, low, high,
):  # fmt: skip
    heads = lse.shape[1]
    zero, one, hidden = q.dtype.type(0), q.dtype.type(1), q.dtype.type(np.inf)
    room = _room(first, last, ptr, max_degree)
    s, grad = np.empty(room, q.dtype), np.empty(room, q.dtype)
    own_lse, own_delta = np.empty(room, q.dtype), np.empty(room, q.dtype)
    for i in range(first, last):
        start, degree = ptr[i], ptr[i + 1] - ptr[i]
        for h in range(heads):
            at, here = h * channels, (i * heads + h) * channels
            delta = dot(g, i * g_step + at, out, here, channels)
            if grad_lse.size > 0:
                delta -= grad_lse[i * heads + h]
            # exp(score - infinity) = 0 for rows whose edges are all hidden
            stats[i, h] = lse[i, h] if lse[i, h] > -hidden else hidden
            stats[i, heads + h] = delta
            if degree > max_degree:
                continue
            dots(s, q, i * q_step + at, k, k_step, at, row, start, degree, channels)
            dots(grad, g, i * g_step + at, v, v_step, at, row, start, degree, channels)
            for t in range((degree + PAD - 1) // PAD * PAD):
                own_lse[t], own_delta[t] = stats[i, h], delta
            factor = scale
            if bias.size > 0:
                factor = one
                for t in range(degree):
                    s[t] = s[t] * scale + bias[(start + t) * heads + h]
            if drop_below > 0:
                for t in range(degree):
                    grad[t] *= keep if _kept(start + t, h, drop_below, low, high) else zero
            edge_gradients(s, grad, own_lse, own_delta, degree, factor)
            if bias.size > 0:
                for t in range(degree):
                    grad_bias[(start + t) * heads + h] = grad[t]
            weighted_sum(
                grad_q, i * grad_q_step + at, k, k_step, at, row, start, grad, degree, channels,
                scale,
            )  # fmt: skip


@_inner
def _source_rows(
    first, last, q, q_step, k, k_step, v, v_step, g, g_step, stats,
    grad_k, grad_k_step, grad_v, grad_v_step, ptr, col, edge, max_degree, channels,
    bias, scale, drop_below, keep, low, high,
):  # fmt: skip
    heads = stats.shape[1] // 2
    zero, one = q.dtype.type(0), q.dtype.type(1)
    room = _room(first, last, ptr, max_degree)
    s, grad = np.empty(room, q.dtype), np.empty(room, q.dtype)
    lse, delta = np.empty((heads, room), q.dtype), np.empty((heads, room), q.dtype)
    lse[:], delta[:] = zero, zero  # behind the last edge, too
    for j in range(first, last):
        start, degree = ptr[j], ptr[j + 1] - ptr[j]
        if degree > max_degree:
            continue
        for t in range(degree):
            i = col[start + t]
            for h in range(heads):
                lse[h, t], delta[h, t] = stats[i, h], stats[i, heads + h]
        for h in range(heads):
            at = h * channels
            dots(s, k, j * k_step + at, q, q_step, at, col, start, degree, channels)
            dots(grad, v, j * v_step + at, g, g_step, at, col, start, degree, channels)
            factor = scale
            if bias.size > 0:
                factor = one
                for t in range(degree):
                    s[t] = s[t] * scale + bias[edge[start + t] * heads + h]
            if drop_below > 0:
                for t in range(degree):
                    e = edge[start + t]
                    grad[t] *= keep if _kept(e, h, drop_below, low, high) else zero
            edge_gradients(s, grad, lse[h], delta[h], degree, factor)
            if drop_below > 0:
                for t in range(degree):
                    e = edge[start + t]
                    s[t] *= keep if _kept(e, h, drop_below, low, high) else zero
            weighted_sum(
                grad_k, j * grad_k_step + at, q, q_step, at, col, start, grad, degree, channels,
                scale,
            )  # fmt: skip
            weighted_sum(
                grad_v, j * grad_v_step + at, g, g_step, at, col, start, s, degree, channels, one
            )  # fmt: skip


@_inner
def _segment_rows(first, last, x, ptr, out):
    for i in range(first, last):
        out[i, :] = x.dtype.type(0)
        for e in range(ptr[i], ptr[i + 1]):
            for c in range(x.shape[1]):
                out[i, c] += x[e, c]
