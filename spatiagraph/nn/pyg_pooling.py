"""Poolings of PyG behind one signature: ``(pool, h, edges, batch) → Pooled``.

Edges never join slides here and every member has a slide. Poolings on a dense adjacency see one
slide at a time: nothing is padded, and the result is that of the slide alone.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch_geometric.nn import MLP, MemPooling
from torch_geometric.utils import subgraph

from spatiagraph._json import Schema
from spatiagraph.nn.protocols import Pooled


class PoolOptions(Schema):
    """Arguments of the poolings that a saved model may have: sizes and shares, no code."""

    in_channels: int | None = None
    out_channels: int | None = None
    channels: int | list[int] | None = None
    k: int | None = None
    num_clusters: int | None = None
    heads: int | None = None
    ratio: float | int | None = None
    min_score: float | None = None
    multiplier: float | None = None
    threshold: float | None = None
    negative_slope: float | None = None
    add_to_edge_score: float | None = None
    tau: float | None = None
    temp: float | None = None
    dropout: float | None = None
    normalize: bool | None = None
    directed: bool | None = None
    add_self_loops: bool | None = None
    nonlinearity: Literal["tanh", "sigmoid", "relu", "softmax"] | None = None
    edge_score_method: Literal["tanh", "sigmoid", "log_softmax"] | None = None


class ScoredPool(nn.Module):
    """A dense pooling function of PyG with the MLP that scores the clusters for it.

    Args:
        function: ``(x, adj, scores, **options) → (x, adj, *losses)``.
        channels: Size of each member; or sizes of the layers of the MLP, the first of them that.
        k: Number of clusters.
        **options: Further arguments of the function.
    """

    def __init__(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        channels: int | list[int],
        k: int,
        **options: object,
    ):
        super().__init__()
        sizes = [channels] if isinstance(channels, int) else [*channels]
        self.function = function
        self.mlp = MLP([*sizes, k], norm=None)
        self.options = options

    def forward(self, h: Tensor, adjacency: Tensor) -> tuple[Tensor, ...]:
        scores = self.mlp(h)
        pooled, coarse, *losses = self.function(h, adjacency, scores, **self.options)
        return scores, pooled, coarse, *losses


def select(pool: nn.Module, h: Tensor, edges: Tensor, batch: Tensor) -> Pooled:
    """Keep some members, each a group of its own; the remaining ones belong to none."""
    pooled, _, _, slide, kept, *_ = pool(h, edges, batch=batch)
    assignment = batch.new_full((h.size(0),), -1)
    assignment[kept] = torch.arange(kept.numel(), device=h.device)
    return Pooled(pooled, assignment, batch=slide)


def select_neighborhoods(pool: nn.Module, h: Tensor, edges: Tensor, batch: Tensor) -> Pooled:
    """Keep some members, each with its neighbours; the fittest of several takes a neighbour."""
    with warnings.catch_warnings():
        # PyG coarsens the graph through sparse CSR, of which torch says once that it is young
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        pooled = select(pool, h, edges, batch)
    own = pooled.assignment
    assert own is not None
    source, target = edges[:, own[edges[1]] >= 0]
    # groups are numbered by fitness within a slide, so the lowest number is the fittest
    nobody = own.new_full(own.shape, h.size(0))
    fittest = nobody.scatter_reduce(0, source, own[target], "amin")
    follower = torch.where(fittest < h.size(0), fittest, -1)
    return pooled._replace(assignment=torch.where(own >= 0, own, follower))


def contract(pool: nn.Module, h: Tensor, edges: Tensor, batch: Tensor) -> Pooled:
    """Contract chosen edges: their ends become one group."""

    def one(h: Tensor, edges: Tensor) -> _Groups:
        pooled, _, _, info = pool(h, edges, batch.new_zeros(h.size(0)))
        return pooled, info.cluster, None

    return _each_slide(one, h, edges, batch)


def cluster(pool: nn.Module, h: Tensor, edges: Tensor, batch: Tensor) -> Pooled:
    """Soft clusters by a dense adjacency; a member belongs to its strongest."""

    def one(h: Tensor, edges: Tensor) -> _Groups:
        adjacency = h.new_zeros(h.size(0), h.size(0))
        adjacency[edges[1], edges[0]] = 1.0
        scores, pooled, _, *losses = pool(h, adjacency)
        # cuts and modularity are divided by the number of edges: without any, nothing is to be cut
        loss = torch.stack(losses).sum() if edges.numel() else h.new_zeros(())
        return pooled.squeeze(0), scores.view(h.size(0), -1).argmax(-1), loss

    return _each_slide(one, h, edges, batch)


def memorize(pool: nn.Module, h: Tensor, edges: Tensor, batch: Tensor) -> Pooled:
    """Soft clusters around learned keys; edges play no part."""
    assert isinstance(pool, MemPooling)

    def one(h: Tensor, edges: Tensor) -> _Groups:
        pooled, share = pool(h.unsqueeze(0))
        return pooled.squeeze(0), share.squeeze(0).argmax(-1), pool.kl_loss(share)

    return _each_slide(one, h, edges, batch)


_Groups = tuple[Tensor, Tensor, Tensor | None]
"""Features ``[k, D]``, group of each member ``[n]`` and loss of the groups of one slide."""


def _each_slide(
    one: Callable[[Tensor, Tensor], _Groups], h: Tensor, edges: Tensor, batch: Tensor
) -> Pooled:
    """Groups of slide after slide, numbered on; the loss is the mean over slides."""
    pooled, slides, losses = [], [], []
    assignment = torch.empty_like(batch)
    first = 0
    for slide, rows, inner in _slides(edges, batch):
        groups, own, loss = one(h[rows], inner)
        assignment[rows] = own + first
        first += groups.size(0)
        pooled.append(groups)
        slides.append(slide.expand(groups.size(0)))
        if loss is not None:
            losses.append(loss)
    mean = torch.stack(losses).mean() if losses else None
    return Pooled(torch.cat(pooled), assignment, mean, torch.cat(slides))


def _slides(edges: Tensor, batch: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Number, members and edges, in rows of these members, of each slide."""
    for slide in batch.unique():
        rows = (batch == slide).nonzero().squeeze(1)
        inner, _ = subgraph(rows, edges, relabel_nodes=True, num_nodes=batch.numel())
        yield slide, rows, inner


ADAPTERS: dict[str, Callable[[nn.Module, Tensor, Tensor, Tensor], Pooled]] = {
    "TopKPooling": select,
    "SAGPooling": select,
    "ASAPooling": select_neighborhoods,
    "EdgePooling": contract,
    "ClusterPooling": contract,
    "DMoNPooling": cluster,
    "dense_mincut_pool": cluster,
    "dense_diff_pool": cluster,
    "MemPooling": memorize,
}
"""Name in ``torch_geometric.nn`` → how it is called."""
