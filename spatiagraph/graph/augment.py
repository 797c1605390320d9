"""Random changes to a graph, as PyG transforms.

Each returns a new ``Data`` and leaves its input as it was; randomness comes from ``generator``.
Apply those that move cells before edge features that depend on positions are computed.
"""

import math

import torch
from torch_geometric import EdgeIndex
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from spatiagraph.graph.edges import plain_edges


class MaskGenes(BaseTransform):
    """Hide random counts.

    Sets hidden entries of ``data.x`` to 0 and adds ``data.masked``, ``[N, G]`` bool: the hidden
    ones. Unmeasured genes (``data.gene_mask`` false) are never hidden: they have nothing to hide.

    Args:
        p: Probability of each entry.
        whole_genes: Hide each chosen gene in all cells instead.
        generator: Source of randomness.

    Raises:
        ValueError: ``p`` is not in [0, 1].
    """

    def __init__(
        self,
        p: float = 0.15,
        *,
        whole_genes: bool = False,
        generator: torch.Generator | None = None,
    ):
        self.p = _probability(p)
        self.whole_genes = whole_genes
        self.generator = generator

    def forward(self, data: Data) -> Data:
        """Hide counts of one graph."""
        rows = 1 if self.whole_genes else data.x.size(0)
        masked = torch.rand(rows, data.x.size(1), generator=self.generator) < self.p
        masked = masked.expand_as(data.x).to(data.x.device)
        if data.get("gene_mask") is not None:
            masked = masked & data.gene_mask
        data.masked = masked
        data.x = data.x.masked_fill(masked, 0)
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(p={self.p}, whole_genes={self.whole_genes})"


class DropEdges(BaseTransform):
    """Remove random edges of ``data.edge_index``, with their ``data.edge_attr``.

    Args:
        p: Probability of each edge.
        generator: Source of randomness.

    Raises:
        ValueError: ``p`` is not in [0, 1].
    """

    def __init__(self, p: float = 0.1, *, generator: torch.Generator | None = None):
        self.p = _probability(p)
        self.generator = generator

    def forward(self, data: Data) -> Data:
        """Remove edges of one graph."""
        edges = data.edge_index
        keep = torch.rand(edges.size(1), generator=self.generator) >= self.p
        keep = keep.to(edges.device)
        kept = plain_edges(edges)[:, keep].contiguous()
        if isinstance(edges, EdgeIndex):
            kept = EdgeIndex(kept, sparse_size=edges.sparse_size(), sort_order=edges.sort_order)
        data.edge_index = kept
        if data.get("edge_attr") is not None:
            data.edge_attr = data.edge_attr[keep]
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(p={self.p})"


class RigidMotion(BaseTransform):
    """Turn, mirror and move all cells together: distances stay.

    Args:
        rotate: Turn by a random angle about the mean position.
        reflect: Mirror with probability 1/2.
        translate_um: Move by up to this much along x and along y.
        generator: Source of randomness.
    """

    def __init__(
        self,
        rotate: bool = True,
        reflect: bool = True,
        translate_um: float = 0.0,
        *,
        generator: torch.Generator | None = None,
    ):
        self.rotate = rotate
        self.reflect = reflect
        self.translate_um = translate_um
        self.generator = generator

    def forward(self, data: Data) -> Data:
        """Move one graph."""
        turn, mirror, dx, dy = torch.rand(4, generator=self.generator).tolist()
        angle = 2 * math.pi * turn if self.rotate else 0.0
        sign = -1.0 if self.reflect and mirror < 0.5 else 1.0
        cos, sin = math.cos(angle), math.sin(angle)
        motion = data.pos.new_tensor([[cos, sin], [-sin * sign, cos * sign]])
        shift = data.pos.new_tensor([2 * dx - 1, 2 * dy - 1]) * self.translate_um
        center = data.pos.mean(dim=0)
        data.pos = (data.pos - center) @ motion + center + shift
        return data

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}(rotate={self.rotate}, reflect={self.reflect}, "
            f"translate_um={self.translate_um})"
        )


class JitterPositions(BaseTransform):
    """Move each cell by Gaussian noise, such as segmentation makes.

    Args:
        sigma_um: Standard deviation along each axis.
        generator: Source of randomness.

    Raises:
        ValueError: ``sigma_um`` is below 0.
    """

    def __init__(self, sigma_um: float = 1.0, *, generator: torch.Generator | None = None):
        if not sigma_um >= 0:
            raise ValueError(f"Expected 'sigma_um' of at least 0, got {sigma_um}")
        self.sigma_um = sigma_um
        self.generator = generator

    def forward(self, data: Data) -> Data:
        """Move the cells of one graph."""
        noise = torch.randn(data.pos.shape, generator=self.generator, dtype=data.pos.dtype)
        data.pos = data.pos + self.sigma_um * noise.to(data.pos.device)
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(sigma_um={self.sigma_um})"


def _probability(p: float) -> float:
    if not 0 <= p <= 1:
        raise ValueError(f"Expected 'p' between 0 and 1, got {p}")
    return p
