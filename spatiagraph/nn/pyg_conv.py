"""Convolutions of PyG by name, with plain edges and saved with the model."""

from typing import Any

from torch import Tensor

from spatiagraph._json import Schema
from spatiagraph.graph.edges import plain_edges
from spatiagraph.nn.config import Configurable

WITH_EDGES = ("GATConv", "GATv2Conv", "TransformerConv", "ResGatedGraphConv", "GENConv")
"""Convolutions that read features of edges, where they were built with ``edge_dim``."""
PLAIN = ("GCNConv", "GraphConv", "SAGEConv", "LEConv", "TAGConv", "SGConv", "ClusterGCNConv")
"""Convolutions that do not."""


class ConvOptions(Schema):
    """Arguments of the convolutions that a saved model may have: sizes and shares, no code."""

    in_channels: int | None = None
    out_channels: int | None = None
    heads: int | None = None
    concat: bool | None = None
    edge_dim: int | None = None
    negative_slope: float | None = None
    dropout: float | None = None
    add_self_loops: bool | None = None
    share_weights: bool | None = None
    residual: bool | None = None
    beta: bool | None = None
    root_weight: bool | None = None
    bias: bool | None = None
    aggr: str | None = None
    normalize: bool | None = None
    project: bool | None = None
    improved: bool | None = None
    K: int | None = None
    num_layers: int | None = None
    t: float | None = None
    learn_t: bool | None = None
    p: float | None = None
    learn_p: bool | None = None
    norm: str | None = None
    diag_lambda: float | None = None


class PyGConv(Configurable):
    """A convolution of PyG in place of :class:`~spatiagraph.nn.GraphTransformer`.

    Args:
        name: Name in ``torch_geometric.nn``, such as ``"GATv2Conv"``.
        **kwargs: Arguments of that class. With ``edge_dim`` it reads features of edges.

    Shapes:
        - **h**: cell features, ``[N, D]``
        - **edge_index**: edges, ``[2, E]``
        - **edge_attr**: features of edges, ``[E, F]``; read with ``edge_dim`` alone
        - **output**: ``[N, D']``; ``D'`` is ``out_channels``, times ``heads`` where they are
          concatenated

    Raises:
        ValueError: If the convolution is not one of those that are known.

    Examples:
        >>> conv = PyGConv("GATv2Conv", in_channels=32, out_channels=8, heads=4, edge_dim=8)
        >>> conv.num_layers
        1
    """

    keywords = ConvOptions

    def __init__(self, name: str, **kwargs: Any):
        super().__init__()
        import torch_geometric.nn as pyg_nn

        if name not in (*WITH_EDGES, *PLAIN):
            raise ValueError(f"Expected one of {', '.join((*WITH_EDGES, *PLAIN))}, got {name!r}")
        self.name = name
        self.conv = getattr(pyg_nn, name)(**kwargs)
        self.reads_edges = name in WITH_EDGES and kwargs.get("edge_dim") is not None
        self.num_layers = int(kwargs.get("K", 1))  # hops that it looks

    def forward(self, h: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        edges = plain_edges(edge_index)
        if self.reads_edges:
            return self.conv(h, edges, edge_attr)
        return self.conv(h, edges)
