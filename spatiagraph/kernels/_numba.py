"""Neighbour attention and segment sums on CPU, in float32 and float64, compiled by numba.

Threads share out the rows. Rows of more than ``MAX_DEGREE`` edges are cut into blocks that are
attended to as rows of their own and put together by their log-sum-exp, so that one tissue node with
a million cells uses all cores.
"""

import logging
import math
import time
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from spatiagraph.kernels import _rows
from spatiagraph.kernels._memory import empty
from spatiagraph.kernels._random import split_seed, threshold

logger = logging.getLogger(__name__)

MAX_DEGREE = 16384
BLOCK = 4096
CHUNKS_PER_THREAD = 16

_announced: set[tuple[str, ...]] = set()


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
    sources = (*_rows_of(k), *_rows_of(v))
    options = _options(q, bias, dropout, seed)

    def rows(q: Tensor, ptr: Tensor, max_degree: int) -> tuple[Tensor, Tensor]:
        out, lse = empty(q.shape, q.dtype), q.new_empty(q.shape[:2])
        _run(_rows.forward, *_rows_of(q), *sources, _flat(out), lse, ptr, row, max_degree, *options)
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
    into: tuple[Tensor, ...] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``q``, ``k``, ``v`` and ``bias``; see :mod:`spatiagraph.kernels._torch`.

    ``into`` is where the first three are written, if it matters.
    """
    grad_q, grad_k, grad_v = into or (empty(x.shape, x.dtype) for x in (q, k, v))
    rowptr, col, edge = transpose
    options = _options(q, bias, dropout, seed)
    grad_bias = q.new_empty(0) if bias is None else bias.new_empty(bias.shape)
    grad_lse = q.new_zeros(0) if grad_lse is None else grad_lse.contiguous()
    nodes = (*_rows_of(k), *_rows_of(v))

    def targets(parts: list[Tensor], grad_q: Tensor, ptr: Tensor, max_degree: int) -> Tensor:
        q, g, out, lse, grad_lse = parts
        stats = lse.new_empty((lse.size(0), 2 * lse.size(1)))
        _run(
            _rows.backward_targets, *_rows_of(q), *nodes, *_rows_of(g), _flat(out.contiguous()),
            lse, _flat(grad_lse), stats, *_rows_of(grad_q), _flat(grad_bias), ptr, row, max_degree,
            *options,
        )  # fmt: skip
        return stats

    def sources(parts: list[Tensor], ptr: Tensor, max_degree: int) -> None:
        arrays = [piece for x in (q, *parts[:2], grad_out) for piece in _rows_of(x)]
        grads = [piece for x in parts[2:] for piece in _rows_of(x)]
        _run(
            _rows.backward_sources, *arrays, stats, *grads, ptr, col, edge, max_degree, *options
        )  # fmt: skip

    parts = [q, grad_out, out, lse, grad_lse]
    stats = targets(parts, grad_q, colptr, MAX_DEGREE)
    for i, ptr in _large_rows(colptr):
        block = [x[i].repeat(ptr.numel() - 1, *[1] * (x.dim() - 1)) for x in parts if x.numel()]
        block += [x for x in parts if not x.numel()]
        grad_block = torch.empty_like(block[0])
        targets(block, grad_block, ptr, BLOCK)
        grad_q[i] = grad_block.sum(0)
    sources([k, v, grad_k, grad_v], rowptr, MAX_DEGREE)
    for j, ptr in _large_rows(rowptr):
        block = [x[j].repeat(ptr.numel() - 1, 1, 1) for x in (k, v, k, v)]
        sources(block, ptr, BLOCK)
        grad_k[j], grad_v[j] = (x.sum(0) for x in block[2:])
    return grad_q, grad_k, grad_v, grad_bias


def segment_sum(x: Tensor, ptr: Tensor) -> Tensor:
    """Sum of the rows of each segment of ``x [E, ...]``, ``[S, ...]``."""
    out = x.new_empty((ptr.numel() - 1, *x.shape[1:]))
    if out.numel():
        flat = x.contiguous().view(x.size(0), out[:1].numel())
        _run(_rows.segment_sum, flat, ptr, out.view(out.size(0), -1), _chunks())
    return out


def transpose(colptr: Tensor, row: Tensor, num_sources: int) -> tuple[Tensor, Tensor, Tensor]:
    """Edges by source, by counting; the same as a stable sort."""
    rowptr = row.new_empty(num_sources + 1)
    col, edge = torch.empty_like(row), torch.empty_like(row)
    _run(_rows.transpose, colptr, row, rowptr, col, edge)
    return rowptr, col, edge


def _large_rows(ptr: Tensor) -> list[tuple[int, Tensor]]:
    """Rows of more than ``MAX_DEGREE`` edges, each with the bounds of its blocks."""
    bounds = ptr.numpy()
    large = np.flatnonzero(np.diff(bounds) > MAX_DEGREE)
    return [
        (int(i), torch.tensor([*range(bounds[i], bounds[i + 1], BLOCK), bounds[i + 1]]).to(ptr))
        for i in large
    ]


def _rows_of(x: Tensor) -> tuple[Tensor, int]:
    """The memory of ``x [N, H, D]`` as one line, and the distance of its rows.

    Copied only if the channels of a row do not lie together.
    """
    if x.stride(2) != 1 or x.stride(1) != x.size(2) or x.stride(0) < 0:
        x = x.contiguous()
    span = (x.size(0) - 1) * x.stride(0) + x.size(1) * x.size(2) if x.numel() else 0
    return x.detach().as_strided((span,), (1,)), x.stride(0)


def _flat(x: Tensor) -> Tensor:
    return x.detach().view(-1)


def _options(q: Tensor, bias: Tensor | None, dropout: float, seed: Tensor | None) -> tuple:
    """Last arguments of the kernels: channels, bias, scale and dropout."""
    number = q.numpy().dtype.type
    low, high = split_seed(seed)
    return (
        q.size(2),
        q.new_empty(0) if bias is None else _flat(bias.contiguous()),
        number(1.0 / math.sqrt(q.size(2))),
        np.uint32(threshold(dropout)),
        number(1.0 / (1.0 - dropout)),
        np.uint32(low),
        np.uint32(high),
        _chunks(),
    )


def _chunks() -> int:
    """Pieces of work, several per thread so that none waits long."""
    return CHUNKS_PER_THREAD * _threads()


def _threads() -> int:
    """As many threads as torch uses."""
    return min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]


def _run(kernel: Any, *args: Any) -> None:
    """Call a kernel on as many threads as torch uses; log when it must be compiled first."""
    arrays = [x.detach().numpy() if isinstance(x, Tensor) else x for x in args]
    signature = (kernel.__name__, *(str(x.dtype) for x in arrays if isinstance(x, np.ndarray)))
    is_first = signature not in _announced
    if is_first:
        _announced.add(signature)
        logger.info(
            "loading the CPU kernel %r for %s: compiled on first use, then kept on disk",
            *signature[:2],
        )
    start, compiled = time.perf_counter(), sum(kernel.stats.cache_misses.values())
    of_torch, wanted = torch.get_num_threads(), _threads()
    threads = numba.get_num_threads()  # starts numba's threads, and sets OpenMP's number for torch
    if torch.get_num_threads() != of_torch:
        torch.set_num_threads(of_torch)
    numba.set_num_threads(wanted)
    try:
        kernel(*arrays)
    finally:
        numba.set_num_threads(threads)
    if is_first and sum(kernel.stats.cache_misses.values()) > compiled:
        seconds = time.perf_counter() - start
        logger.info("compiled the CPU kernel %r in %.1f s", signature[0], seconds)
