"""Sampling of the genes of each cell that become tokens, on the device of the counts."""

from typing import NamedTuple

import torch
from torch import Tensor


class SampledGenes(NamedTuple):
    """Genes of each cell that become tokens, in panel order.

    Attributes:
        ids: Columns of the panel, ``[N, L]``; any on padding.
        values: What was measured of them, ``[N, L]``; 0 on padding.
        pad: True where there is no gene, ``[N, L]``; ``None`` if there is one everywhere.
    """

    ids: Tensor
    values: Tensor
    pad: Tensor | None

    def take(self, x: Tensor) -> Tensor:
        """Entries of another matrix ``[N, G]`` at the same genes, ``[N, L]``; 0 on padding."""
        taken = x.gather(1, self.ids)
        return taken if self.pad is None else taken.masked_fill(self.pad, 0)


def sample_genes(
    x: Tensor,
    gene_mask: Tensor | None = None,
    *,
    length: int | None = 1000,
    fill_zeros: bool = True,
    order: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> SampledGenes:
    """Pick genes of each cell without replacement: first the expressed ones, then zeros.

    Genes outside of ``gene_mask`` are never picked.

    Args:
        x: Counts in panel order, ``[N, G]``.
        gene_mask: Genes that may be seen, ``[G]`` or ``[N, G]``.
        length: Genes per cell at most; ``None`` for all.
        fill_zeros: Pick genes with count 0 as well.
        order: Prefer genes with a high value here, ``[G]``, the same in every cell; random when
            ``None``.
        generator: Of the random draw.

    Examples:
        >>> x = torch.tensor([[0.0, 2.0, 0.0, 1.0]])
        >>> found = sample_genes(x, torch.tensor([True, True, False, True]), length=3)
        >>> found.ids, found.values
        (tensor([[0, 1, 3]]), tensor([[0., 2., 1.]]))
    """
    num_cells, num_genes = x.shape
    seen = x.new_ones(num_genes, dtype=torch.bool) if gene_mask is None else gene_mask
    seen = seen.expand(num_cells, num_genes)
    candidates = seen if fill_zeros else seen & (x > 0)
    width = int(candidates.sum(1).max()) if num_cells else 0
    width = width if length is None else min(length, width)
    if width == num_genes and bool(candidates.all()):
        ids = torch.arange(num_genes, device=x.device).expand(num_cells, -1)
        return SampledGenes(ids, x.clone(), None)
    if order is None:
        order = torch.rand(x.shape, generator=generator, device=x.device)
    else:
        order = (order - order.min()) / (order.max() - order.min() + 1)
    # expressed genes before zeros before those that may not be seen
    rank = order + candidates.to(order.dtype) * (1 + (x > 0))
    ids = rank.topk(width, 1).indices.sort(1).values
    pad = ~candidates.gather(1, ids)
    values = x.gather(1, ids)
    if not bool(pad.any()):
        return SampledGenes(ids, values, None)
    ids, values, pad = _pad_right(ids, values, pad)
    return SampledGenes(ids, values.masked_fill(pad, 0), pad)


def _pad_right(ids: Tensor, values: Tensor, pad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    order = pad.to(torch.uint8).argsort(dim=1, stable=True)
    return ids.gather(1, order), values.gather(1, order), pad.gather(1, order)
