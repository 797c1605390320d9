"""Inputs of models of slides as named tuples of tensors: cells, and the graph they lie in."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor


class Cells(NamedTuple):
    """Measurements of cells; ``None`` where there is none.

    Attributes:
        x: Counts, ``[N, G]``.
        image: Crops in ``[0, 1]``, ``[N, C, H, W]``.
        gene_mask: Genes that may be seen, ``[G]`` or ``[N, G]``.
        depth: Total counts over all genes, ``[N]``.
        gene_present: Cells with genes, ``[N]``.
        image_mask: Cells with an image, ``[N]``.
        window_um: Side of the window of each crop in µm, ``[N]``.
        z: Embeddings of the cells computed before, ``[N, D]``, in place of all others.
        value_mask: Genes of which encoders of tokens are shown the name alone, not the count,
            ``[N, G]``.
        gene_ids: Genes as ranked tokens without padding, sparse CSR ``[N, L]``.
    """

    x: Tensor | None = None
    image: Tensor | None = None
    gene_mask: Tensor | None = None
    depth: Tensor | None = None
    gene_present: Tensor | None = None
    image_mask: Tensor | None = None
    window_um: Tensor | None = None
    z: Tensor | None = None
    value_mask: Tensor | None = None
    gene_ids: Tensor | None = None

    @property
    def counted(self) -> Tensor | None:
        """Genes whose counts may be seen, ``[G]`` or ``[N, G]``; ``None`` for all."""
        if self.value_mask is None:
            return self.gene_mask
        return ~self.value_mask if self.gene_mask is None else self.gene_mask & ~self.value_mask

    def take(self, rows: Tensor | slice) -> "Cells":
        """Measurements of some of the cells.

        Args:
            rows: Their rows.
        """
        mask = self.gene_mask
        if self.gene_ids is not None:
            raise ValueError("Expected cells without ranked tokens, which are taken on the slide")
        some = Cells(*(None if value is None else value[rows] for value in self))
        return some if mask is None or mask.dim() == 2 else some._replace(gene_mask=mask)


class LevelGraph(NamedTuple):
    """Groups of one level.

    Attributes:
        own: Group of each member, ``[n]``; -1 for none.
        members: Members → the groups they are part of, ``[2, P]``, sorted by group; ``None`` where
            that is ``own``.
        pos: Centres in µm, ``[M, 2]``.
        image: Crops of the groups in ``[0, 1]``, ``[M, C, H, W]``, or ``None``.
    """

    own: Tensor
    members: Tensor | None
    pos: Tensor
    image: Tensor | None = None


class CellGraph(NamedTuple):
    """Cells in space.

    Attributes:
        pos: Positions in µm, ``[N, 2]``.
        edge_index: Messages source → target, ``[2, E]``, sorted by target.
        levels: Groups of each level, from cells upwards.
        batch: Slide of each cell, ``[N]``; one slide when ``None``.
    """

    pos: Tensor
    edge_index: Tensor
    levels: tuple[LevelGraph, ...] = ()
    batch: Tensor | None = None


class Hidden(NamedTuple):
    """Cells and groups that are replaced by a learned vector.

    Attributes:
        cells: ``[N]`` bool, or ``None``.
        levels: ``[M]`` bool for each level, or ``None``; shorter than the levels if none above is.
    """

    cells: Tensor | None = None
    levels: tuple[Tensor | None, ...] = ()


class LevelEmbeddings(NamedTuple):
    """Embeddings of the groups of one level.

    Attributes:
        h: Groups, after those of the same group above saw each other, ``[M, D]``.
        own: Group of each member, ``[n]``; -1 for none.
        pooled: Groups before that, ``[M, D]``.
        members: Members → the groups they are part of, ``[2, P]``; ``None`` where that is ``own``.
            Of a pooling that makes its own groups, they are those and not the ones given to it.
    """

    h: Tensor
    own: Tensor
    pooled: Tensor
    members: Tensor | None = None


class Embeddings(NamedTuple):
    """Embeddings of cells and of the levels above them.

    Attributes:
        cell: Cells in context, ``[N, D]``.
        levels: Groups of each level, from cells upwards.
        loss: Auxiliary loss of learned poolings, or ``None``.
        context: Cells after messages from their neighbours, before any gate, ``[N, D]``, or
            ``None``.
        named: Further embeddings of cells by name, ``[N, D]`` each, such as of one modality.
    """

    cell: Tensor
    levels: tuple[LevelEmbeddings, ...] = ()
    loss: Tensor | None = None
    context: Tensor | None = None
    named: Mapping[str, Tensor] = MappingProxyType({})
