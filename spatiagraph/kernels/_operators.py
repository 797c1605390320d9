"""The ``torch.library`` operators behind neighbour attention: forward and backward.

They save only the output and the log-sum-exp. The backend is a name among the arguments, so both
passes use the same one. The transposed graph ``(rowptr, col, edge)`` is only for the backward pass.
"""

import torch
from torch import Tensor

from spatiagraph.kernels._graph import NeighborGraph, neighbor_graph, sort_edges, transpose
from spatiagraph.kernels._memory import empty
from spatiagraph.kernels.backends import implementation


@torch.library.custom_op("spatiagraph::neighbor_attention", mutates_args=())
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    colptr: Tensor,
    row: Tensor,
    rowptr: Tensor | None,
    col: Tensor | None,
    edge: Tensor | None,
    dropout: float,
    seed: Tensor | None,
    backend: str,
) -> tuple[Tensor, Tensor]:
    return implementation(backend).attention_forward(q, k, v, bias, colptr, row, dropout, seed)


@torch.library.custom_op("spatiagraph::neighbor_attention_backward", mutates_args=())
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
    rowptr: Tensor | None,
    col: Tensor | None,
    edge: Tensor | None,
    dropout: float,
    seed: Tensor | None,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if rowptr is None or col is None or edge is None:
        rowptr, col, edge = transpose(colptr, row, k.size(0))
    grad_q, grad_k, grad_v, grad_s = implementation(backend).attention_backward(
        grad_out, grad_lse, q, k, v, bias, out, lse, colptr, row, (rowptr, col, edge), dropout, seed
    )
    return grad_q, grad_k, grad_v, grad_s.new_empty(0) if bias is None else grad_s.to(bias.dtype)


@attention.register_fake
def _(q, k, v, bias, colptr, row, rowptr, col, edge, dropout, seed, backend):
    lse_dtype = torch.promote_types(q.dtype, torch.float32)
    return q.new_empty(q.shape), q.new_empty(q.shape[:2], dtype=lse_dtype)


@attention_backward.register_fake
def _(grad_out, grad_lse, q, k, v, bias, out, lse, *graph_and_options):
    grad_bias = lse.new_empty(0) if bias is None else bias.new_empty(bias.shape)
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), grad_bias


def _save(ctx, inputs, output):
    q, k, v, bias, colptr, row, rowptr, col, edge, ctx.dropout, seed, ctx.backend = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, bias, *output, colptr, row, rowptr, col, edge, seed)


def _differentiate(ctx, grad_out, grad_lse):
    q, k, v, bias, out, lse, colptr, row, rowptr, col, edge, seed = ctx.saved_tensors
    if grad_out is None:
        grad_out = torch.zeros_like(out)
    grad_q, grad_k, grad_v, grad_bias = attention_backward(
        grad_out, grad_lse, q, k, v, bias, out, lse, colptr, row, rowptr, col, edge,
        ctx.dropout, seed, ctx.backend,
    )  # fmt: skip
    return grad_q, grad_k, grad_v, None if bias is None else grad_bias, *[None] * 8


attention.register_autograd(_differentiate, setup_context=_save)


@torch.library.custom_op("spatiagraph::neighbor_self_attention", mutates_args=())
def self_attention(
    qkv: Tensor,
    bias: Tensor | None,
    colptr: Tensor,
    row: Tensor,
    rowptr: Tensor | None,
    col: Tensor | None,
    edge: Tensor | None,
    dropout: float,
    seed: Tensor | None,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """As :func:`attention`, of ``qkv [N, 3, H, D]``."""
    return implementation(backend).attention_forward(
        *qkv.unbind(1), bias, colptr, row, dropout, seed
    )


@torch.library.custom_op("spatiagraph::neighbor_self_attention_backward", mutates_args=())
def self_attention_backward(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    qkv: Tensor,
    bias: Tensor | None,
    out: Tensor,
    lse: Tensor,
    colptr: Tensor,
    row: Tensor,
    rowptr: Tensor | None,
    col: Tensor | None,
    edge: Tensor | None,
    dropout: float,
    seed: Tensor | None,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Gradients of ``qkv`` and ``bias``; numba writes the three parts where they belong."""
    if rowptr is None or col is None or edge is None:
        rowptr, col, edge = transpose(colptr, row, qkv.size(0))
    run = implementation(backend)
    transposed = (rowptr, col, edge)
    arguments = (
        grad_out, grad_lse, *qkv.unbind(1), bias, out, lse, colptr, row, transposed, dropout, seed
    )  # fmt: skip
    if backend == "numba":
        grad_qkv = empty(qkv.shape, qkv.dtype)
        *_, grad_s = run.attention_backward(*arguments, into=grad_qkv.unbind(1))
    else:
        *parts, grad_s = run.attention_backward(*arguments)
        grad_qkv = torch.stack(parts, 1)
    return grad_qkv, grad_s.new_empty(0) if bias is None else grad_s.to(bias.dtype)


@self_attention.register_fake
def _(qkv, bias, colptr, row, rowptr, col, edge, dropout, seed, backend):
    lse_dtype = torch.promote_types(qkv.dtype, torch.float32)
    num_cells, _, heads, channels = qkv.shape
    return qkv.new_empty((num_cells, heads, channels)), qkv.new_empty(
        (num_cells, heads), dtype=lse_dtype
    )


@self_attention_backward.register_fake
def _(grad_out, grad_lse, qkv, bias, out, lse, *graph_and_options):
    grad_bias = lse.new_empty(0) if bias is None else bias.new_empty(bias.shape)
    return qkv.new_empty(qkv.shape), grad_bias


def _save_self(ctx, inputs, output):
    qkv, bias, colptr, row, rowptr, col, edge, ctx.dropout, seed, ctx.backend = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(qkv, bias, *output, colptr, row, rowptr, col, edge, seed)


def _differentiate_self(ctx, grad_out, grad_lse):
    qkv, bias, out, lse, colptr, row, rowptr, col, edge, seed = ctx.saved_tensors
    if grad_out is None:
        grad_out = torch.zeros_like(out)
    grad_qkv, grad_bias = self_attention_backward(
        grad_out, grad_lse, qkv, bias, out, lse, colptr, row, rowptr, col, edge,
        ctx.dropout, seed, ctx.backend,
    )  # fmt: skip
    return grad_qkv, None if bias is None else grad_bias, *[None] * 8


self_attention.register_autograd(_differentiate_self, setup_context=_save_self)


@torch.library.custom_op("spatiagraph::sort_edges", mutates_args=())
def _sort_edges(
    edge_index: Tensor, num_sources: int, num_targets: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Edges by target, ``(colptr, row, perm)``, then by source, ``(rowptr, col, edge)``."""
    colptr, row, perm = sort_edges(edge_index, num_sources, num_targets)
    if perm is None:
        perm = torch.arange(edge_index.size(1), device=edge_index.device)
    row = row.clone()
    return colptr, row, perm, *transpose(colptr, row, num_sources)


@_sort_edges.register_fake
def _(edge_index, num_sources, num_targets):
    sizes = (num_targets + 1, *[edge_index.size(1)] * 2, num_sources + 1, *[edge_index.size(1)] * 2)
    dtypes = [torch.int32, torch.int32, torch.int64, *[torch.int32] * 3]
    return tuple(
        edge_index.new_empty(size, dtype=dtype) for size, dtype in zip(sizes, dtypes, strict=True)
    )


def prepared_graph(edge_index: Tensor, num_sources: int, num_targets: int) -> NeighborGraph:
    """The sorted edges; while compiling, by an operator that the compiler need not look into."""
    if not torch.compiler.is_compiling():
        return neighbor_graph(edge_index, num_sources, num_targets)
    colptr, row, perm, *by_source = _sort_edges(edge_index, num_sources, num_targets)
    return NeighborGraph(colptr, row, perm, num_sources, tuple(by_source))
