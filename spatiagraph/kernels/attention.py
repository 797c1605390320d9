r"""Softmax attention over the neighbours of each node, the primitive of every layer and pooling.

Legend: ``M`` targets, ``N`` sources, ``H`` heads, ``D`` channels of a head, ``E`` edges.
"""

import torch
from torch import Tensor

from spatiagraph.kernels import _operators
from spatiagraph.kernels.backends import backend_for


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
    r"""Softmax attention of each target over its neighbours.

    .. math::
        \mathbf{o}_i = \sum_{j \to i} \alpha_{ij} \mathbf{v}_j, \qquad
        \alpha_{ij} = \mathrm{softmax}_{j \to i}
        \left(\frac{\mathbf{q}_i^\top \mathbf{k}_j}{\sqrt{D}} + b_{ij}\right)

    per head. A target without edges gets zeros. Nothing of size edges × channels is stored (save by
    the ``torch`` and ``scatter`` backends), and results are the same bits from run to run. Second
    derivatives are not supported.

    Under autocast, CUDA tensors are cast to the autocast dtype (sums are kept in float32) and CPU
    tensors to float32, in which the CPU kernel is fastest. float64 stays float64.

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
    q, k, v = (_autocast(x) for x in (q, k, v))
    options = _options((q, k, v), edge_index, bias, dropout, seed)
    return _operators.attention(q, k, v, *options)[0]


def neighbor_self_attention(
    qkv: Tensor,
    edge_index: Tensor,
    bias: Tensor | None = None,
    *,
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
) -> Tensor:
    """:func:`neighbor_attention` of cells on each other, from one joint projection.

    The same result as of the three parts. On CPU nothing is copied, and the gradient is one tensor
    for the projection to take, which saves half of the memory that a layer moves.

    Args:
        qkv: Queries, keys and values side by side, ``[N, 3, H, D]``.
        edge_index: ``[2, E]``, as in :func:`neighbor_attention`.
        bias: Added to the scores, ``[E, H]``.
        dropout: Probability of dropping an edge of a head.
        seed: Which edges are dropped; drawn from torch's generator when ``None``.

    Returns:
        ``[N, H, D]``.

    Raises:
        ValueError: As :func:`neighbor_attention`.
    """
    if qkv.dim() != 4 or qkv.size(1) != 3:
        raise ValueError(f"Expected 'qkv' of shape [N, 3, H, D], got {list(qkv.shape)}")
    q, k, v = qkv.unbind(1)
    _check(q, k, v, edge_index, bias, dropout)
    qkv = _autocast(qkv)
    q, k, v = qkv.unbind(1)
    options = _options((q, k, v), edge_index, bias, dropout, seed)
    return _operators.self_attention(qkv, *options)[0]


def _options(
    inputs: tuple[Tensor, Tensor, Tensor],
    edge_index: Tensor,
    bias: Tensor | None,
    dropout: float,
    seed: int | Tensor | None,
) -> tuple:
    """Arguments of the operators after the features: bias, graph, dropout and backend."""
    q, k, _ = inputs
    graph = _operators.prepared_graph(edge_index, k.size(0), q.size(0))
    if bias is not None:
        bias = bias.to(torch.promote_types(q.dtype, torch.float32))
        if graph.perm is not None:
            bias = bias[graph.perm]
    if dropout > 0.0 and not isinstance(seed, Tensor):
        seed = torch.randint(2**62, ()) if seed is None else torch.tensor(seed, dtype=torch.int64)
    needs_grad = torch.is_grad_enabled() and any(
        x is not None and x.requires_grad for x in (*inputs, bias)
    )
    transposed = graph.transposed() if needs_grad else (None, None, None)
    seed = seed if dropout > 0.0 else None
    return bias, graph.colptr, graph.row, *transposed, float(dropout), seed, backend_for(q)


def _autocast(x: Tensor) -> Tensor:
    device = x.device.type
    if not torch.is_autocast_enabled(device) or x.dtype == torch.float64:
        return x
    return x.to(torch.float32 if device == "cpu" else torch.get_autocast_dtype(device))


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
