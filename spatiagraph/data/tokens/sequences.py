"""Ranked genes of one cell, or of two, as padded sequences with the tokens around them.

A pair is ``[CLS] meta genes [SEP] meta genes [SEP]``, a single cell ``[CLS] meta genes [SEP]``.
Sequences are put together on the device where the tokens are, and are as long as the longest.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Marks(NamedTuple):
    """Ids of the tokens around genes."""

    pad: int
    cls: int
    sep: int


class CellSequences(NamedTuple):
    """Sequences of one cell or two.

    Attributes:
        tokens: Token ids, ``[B, L]`` int64.
        token_type: 0 padding, 1 first cell, 2 second cell, ``[B, L]`` int64.
        mask: Real tokens, ``[B, L]`` bool.
        gene_mask: Tokens that are genes, ``[B, L]`` bool.
        start: Place of the first gene of each cell, ``[B, S]``; S is 1 or 2.
        lengths: Genes of each cell, ``[B, S]``.
        cells: Row of each cell in the batch, ``[B, S]``.
    """

    tokens: Tensor
    token_type: Tensor
    mask: Tensor
    gene_mask: Tensor
    start: Tensor
    lengths: Tensor
    cells: Tensor

    def gene_positions(self) -> tuple[Tensor, Tensor]:
        """Positions of the genes of each cell, first cells before second ones, and which are real.

        Returns:
            Places ``[S * B, n]``, clamped to the sequence, and a mask of the same shape.
        """
        start, length = self.start.T.flatten(), self.lengths.T.flatten()
        rank = torch.arange(int(length.max()), device=start.device)
        places = start[:, None] + rank
        return places.clamp(max=self.tokens.size(1) - 1), rank < length[:, None]

    def take_genes(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the genes of each cell, ``[S * B, n, ...]``, and which are real.

        Args:
            hidden: Feature of each token, ``[B, L, ...]``.
        """
        places, real = self.gene_positions()
        row = torch.arange(len(self.tokens), device=hidden.device).repeat(self.start.size(1))
        return hidden[row[:, None], places], real


def cell_sequences(
    gene_ids: Tensor,
    meta: Tensor,
    marks: Marks,
    first: Tensor,
    second: Tensor | None = None,
    *,
    max_len: int = 500,
) -> CellSequences:
    """Sequences of some cells, or of pairs of them.

    Where a pair is too long each cell keeps half of the room, and the other half's what it does not
    need; the lowest-ranked genes are cut.

    Args:
        gene_ids: Ranked genes of each cell: sparse CSR ``[N, R]`` whose values are token ids.
        meta: Tokens of metadata of each cell, ``[N, M]``.
        marks: Other tokens.
        first: Rows of the first cells, ``[B]``.
        second: Rows of the second cells, ``[B]``; ``None`` for sequences of one cell.
        max_len: Longest sequence.

    Raises:
        ValueError: If ``max_len`` has no room for a gene of each cell.
    """
    num_meta = meta.size(1)
    room = max_len - (num_meta + 2) - (0 if second is None else num_meta + 1)
    if room < (1 if second is None else 2):
        raise ValueError(f"Expected 'max_len' with room for genes, got {max_len}")
    ptr, ids = gene_ids.crow_indices(), gene_ids.values()
    length = ptr[1:] - ptr[:-1]
    n1, head = length[first], 1 + num_meta
    if second is None:
        n1 = n1.clamp(max=room)
        starts, lengths, cells = torch.full_like(n1, head)[:, None], n1[:, None], first[:, None]
    else:
        n2 = length[second]
        n1 = torch.minimum(n1, (room - n2).clamp(min=room // 2))
        n2 = torch.minimum(n2, room - n1)
        starts = torch.stack([torch.full_like(n1, head), head + n1 + 1 + num_meta], 1)
        lengths, cells = torch.stack([n1, n2], 1), torch.stack([first, second], 1)
    end = starts[:, -1] + lengths[:, -1]  # where the last [SEP] stands
    place = torch.arange(int(end.max()) + 1 if len(end) else 0, device=ids.device)
    shape = (len(first), len(place))
    tokens = torch.full(shape, marks.pad, device=ids.device)
    token_type = torch.zeros(shape, dtype=torch.long, device=ids.device)
    gene_mask = torch.zeros(shape, dtype=torch.bool, device=ids.device)
    for slot in range(starts.size(1)):
        start, n = starts[:, slot, None], lengths[:, slot, None]
        row = cells[:, slot]
        genes = (place >= start) & (place < start + n)
        at = (ptr[row][:, None] + place - start).clamp(0, max(len(ids) - 1, 0))
        if len(ids):
            tokens = torch.where(genes, ids[at], tokens)
        before = (place >= start - num_meta) & (place < start)
        of_meta = (place - start + num_meta).clamp(0, max(num_meta - 1, 0))
        if num_meta:
            tokens = torch.where(before, meta[row].gather(1, of_meta), tokens)
        tokens = tokens.masked_fill(place == start + n, marks.sep)
        own = (place >= (start - num_meta if slot else 0)) & (place <= start + n)
        token_type = token_type.masked_fill(own, slot + 1)
        gene_mask |= genes
    if len(place):
        tokens[:, 0] = marks.cls
    return CellSequences(tokens, token_type, token_type > 0, gene_mask, starts, lengths, cells)
