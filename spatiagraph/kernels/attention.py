r"""Softmax attention over the neighbours of each node, the primitive of every layer and pooling.

Two ``torch.library`` operators, forward and backward, that save only the output and the
log-sum-exp. The backend is chosen when the function is called and travels with the operator, so
both passes use the same one. Legend: ``M`` targets, ``N`` sources, ``H`` heads, ``D`` channels of a
head, ``E`` edges.
"""

import torch
from torch import Tensor

from spatiagraph.kernels._graph import NeighborGraph, neighbor_graph, sort_edges, transpose
from spatiagraph.kernels.backends import backend_for, implementation


def neighbor_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    edge_index: Tensor,
    bias: Tensor | None = None,
    *,
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
) -> Tensor:
    r"""Let each target look at its neighbours and average what they say.

    .. math::
        \mathbf{o}_i = \sum_{j \to i} \alpha_{ij} \mathbf{v}_j, \qquad
        \alpha_{ij} = \mathrm{softmax}_{j \to i}
        \left(\frac{\mathbf{q}_i^\top \mathbf{k}_j}{\sqrt{D}} + b_{ij}\right)

    per head. A target without edges gets zeros. Nothing of size edges × channels is stored (save by
    the ``torch`` and ``scatter`` backends), and results are the same bits from run to run. Second
    derivatives are not supported.

    Under autocast, CUDA tensors are cast to the autocast dtype (sums are kept in float32) and CPU
    tensors to float32, in which the CPU kernel is fastest. float64 is left alone.

    Args:
        q: Queries of the targets, ``[M, H, D]``.
        k: Keys of the sources, ``[N, H, D]``.
        v: Values of the sources, ``[N, H, D]``.
        edge_index: ``[2, E]``, source in row 0 and target in row 1. An ``EdgeIndex`` is prepared
            once and remembered; a plain tensor is prepared at every call, and sorted if need be.
        bias: Added to the scores, ``[E, H]``, in the order of ``edge_index``; ``-inf`` hides one.
        dropout: Probability of dropping an edge of a head; the rest is scaled up in turn.
        seed: Which edges are dropped; drawn from torch's generator when ``None``.

    Returns:
        ``[M, H, D]``, in the dtype of ``q``.

    Raises:
        ValueError: If shapes, dtypes or devices disagree, or an index is out of range. On CUDA the
            range check waits for the device once per graph.

    Example:
        >>> q = k = v = torch.eye(3).view(3, 1, 3)
        >>> neighbor_attention(q, k, v, torch.tensor([[1, 0, 1], [0, 2, 2]])).squeeze(1)
        tensor([[0.0000, 1.0000, 0.0000],
                [0.0000, 0.0000, 0.0000],
                [0.5000, 0.5000, 0.0000]])
    """
    _check(q, k, v, edge_index, bias, dropout)
    q, k, v = _autocast(q, k, v)
    graph = _graph(edge_index, k.size(0), q.size(0))
    if bias is not None:
        bias = bias.to(torch.promote_types(q.dtype, torch.float32))
        if graph.perm is not None:
            bias = bias[graph.perm]
    if dropout > 0.0 and not isinstance(seed, Tensor):
        seed = torch.randint(2**62, ()) if seed is None else torch.tensor(seed, dtype=torch.int64)
    needs_grad = torch.is_grad_enabled() and any(
        x is not None and x.requires_grad for x in (q, k, v, bias)
    )
    rowptr, col, edge = graph.transposed() if needs_grad else (None, None, None)
    out, _ = _attention(
        q, k, v, bias, graph.colptr, graph.row, rowptr, col, edge,
        float(dropout), seed if dropout > 0.0 else None, backend_for(q),
    )  # fmt: skip
    return out


@torch.library.custom_op("spatiagraph::neighbor_attention", mutates_args=())
def _attention(
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
def _attention_backward(
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


@_attention.register_fake
def _(q, k, v, bias, colptr, row, rowptr, col, edge, dropout, seed, backend):  # type: ignore[no-untyped-def]
    lse_dtype = torch.promote_types(q.dtype, torch.float32)
    return q.new_empty(q.shape), q.new_empty(q.shape[:2], dtype=lse_dtype)


@_attention_backward.register_fake
def _(grad_out, grad_lse, q, k, v, bias, out, lse, *graph_and_options):  # type: ignore[no-untyped-def]
    grad_bias = lse.new_empty(0) if bias is None else bias.new_empty(bias.shape)
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), grad_bias


def _save(ctx, inputs, output):  # type: ignore[no-untyped-def]
    q, k, v, bias, colptr, row, rowptr, col, edge, ctx.dropout, seed, ctx.backend = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, bias, *output, colptr, row, rowptr, col, edge, seed)


def _differentiate(ctx, grad_out, grad_lse):  # type: ignore[no-untyped-def]
    q, k, v, bias, out, lse, colptr, row, rowptr, col, edge, seed = ctx.saved_tensors
    if grad_out is None:
        grad_out = torch.zeros_like(out)
    grad_q, grad_k, grad_v, grad_bias = _attention_backward(
        grad_out, grad_lse, q, k, v, bias, out, lse, colptr, row, rowptr, col, edge,
        ctx.dropout, seed, ctx.backend,
    )  # fmt: skip
    return grad_q, grad_k, grad_v, None if bias is None else grad_bias, *[None] * 8


_attention.register_autograd(_differentiate, setup_context=_save)


@torch.library.custom_op("spatiagraph::sort_edges", mutates_args=())
def _sort_edges(
    edge_index: Tensor, num_sources: int, num_targets: int
) -> tuple[Tensor, Tensor, Tensor]:
    colptr, row, perm = sort_edges(edge_index, num_sources, num_targets)
    if perm is None:
        perm = torch.arange(edge_index.size(1), device=edge_index.device)
    return colptr, row.clone(), perm


@_sort_edges.register_fake
def _(edge_index, num_sources, num_targets):  # type: ignore[no-untyped-def]
    index = edge_index.new_empty(edge_index.size(1), dtype=torch.int32)
    colptr = edge_index.new_empty(num_targets + 1, dtype=torch.int32)
    return colptr, index, index.new_empty(index.shape, dtype=torch.int64)


def _graph(edge_index: Tensor, num_sources: int, num_targets: int) -> NeighborGraph:
    """The prepared graph; while compiling, through an operator the compiler need not look into."""
    if not torch.compiler.is_compiling():
        return neighbor_graph(edge_index, num_sources, num_targets)
    colptr, row, perm = _sort_edges(edge_index, num_sources, num_targets)
    return NeighborGraph(colptr, row, perm, num_sources)


def _autocast(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    device = q.device.type
    if not torch.is_autocast_enabled(device) or q.dtype == torch.float64:
        return q, k, v
    dtype = torch.float32 if device == "cpu" else torch.get_autocast_dtype(device)
    return q.to(dtype), k.to(dtype), v.to(dtype)


def _check(
    q: Tensor, k: Tensor, v: Tensor, edge_index: Tensor, bias: Tensor | None, dropout: float
) -> None:
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.dim() != 3:
            raise ValueError(f"Expected '{name}' of shape [nodes, H, D], got {list(x.shape)}")
        if not x.is_floating_point():
            raise ValueError(f"Expected '{name}' of a floating dtype, got {x.dtype}")
    if k.shape != v.shape:
        raise ValueError(
            f"Expected 'k' and 'v' of one shape [N, H, D], got {list(k.shape)} and {list(v.shape)}"
        )
    if q.shape[1:] != k.shape[1:]:
        raise ValueError(
            "Expected 'q' and 'k' with the same heads and channels, "
            f"got {list(q.shape)} and {list(k.shape)}"
        )
    if q.size(1) == 0 or q.size(2) == 0:
        raise ValueError(f"Expected at least one head and one channel, got 'q' {list(q.shape)}")
    if not q.dtype == k.dtype == v.dtype and not torch.is_autocast_enabled(q.device.type):
        raise ValueError(
            f"Expected 'q', 'k' and 'v' of one dtype, got {q.dtype}, {k.dtype} and {v.dtype}"
        )
    others = [("k", k), ("v", v), ("edge_index", edge_index)]
    others += [] if bias is None else [("bias", bias)]
    for name, x in others:
        if x.device != q.device:
            raise ValueError(
                f"Expected '{name}' on the device of 'q' ({q.device}), got {x.device}; "
                f"move it with .to({str(q.device)!r})"
            )
    if bias is not None:
        if not bias.is_floating_point():
            raise ValueError(f"Expected 'bias' of a floating dtype, got {bias.dtype}")
        if bias.dim() != 2 or tuple(bias.shape) != (edge_index.size(-1), q.size(1)):
            raise ValueError(
                f"Expected 'bias' of shape [E, H] = [{edge_index.size(-1)}, {q.size(1)}], "
                f"got {list(bias.shape)}"
            )
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"Expected 'dropout' in [0, 1), got {dropout}")
