"""States of pairs before any layer, and attention with them: as a matrix, or as a table on CUDA.

Shape letters as in :mod:`spatiagraph.nn.se2_transformer`.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint


class PairStates(Protocol):
    """States of all pairs before any layer."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Messages ``[B, H, L, D]``, of attention with these states and products of queries."""
        ...

    def dense(self) -> Tensor:
        """All of them, ``[B, H, L, L]``, or of size 1 where there are none."""
        ...

    def at(self, graph: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """Some of them, ``[M, H]``."""
        ...


class MatrixOfPairs:
    """States of pairs as a matrix; attention is of some rows at a time.

    Args:
        start: The states, ``[B, H, L, L]``, or zeros of size 1 for none.
        real: Nodes that are no padding, ``[B, L]``.
        scale: Factor of products of queries and keys.
        rows: Rows of attention at once: memory, not the result.
    """

    def __init__(self, start: Tensor, real: Tensor, scale: float, rows: int):
        self.start, self.scale, self.rows = start, scale, rows
        hidden = start.new_zeros(real.shape).masked_fill(~real, -torch.inf)[:, None, None]
        self.bias = start + hidden if start.size(3) > 1 else hidden

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        attend: Callable[..., Tensor] = partial(
            scaled_dot_product_attention, dropout_p=dropout, scale=self.scale
        )
        bias = self.bias.to(q.dtype)
        parts = []
        for first in range(0, q.size(2), self.rows):
            rows = slice(first, first + self.rows)
            some = bias[:, :, rows] if bias.size(2) > 1 else bias
            given = (q[:, :, rows], k, v, some.expand(-1, -1, q[:, :, rows].size(2), -1))
            if torch.is_grad_enabled():
                parts.append(checkpoint(attend, *given, use_reentrant=False))
            else:
                parts.append(attend(*given))
        return torch.cat(parts, 2)

    def dense(self) -> Tensor:
        return self.start

    def at(self, graph: Tensor, i: Tensor, j: Tensor) -> Tensor:
        if self.start.size(3) == 1:
            return self.start.new_zeros(1, 1)
        return self.start[graph, :, i, j]


class TableOfPairs:
    """States of pairs as values of the known ones and a table of their numbers, for CUDA.

    The table is one matrix for all heads; no matrix of a head is ever there, and attention keeps
    its output alone. The result is that of :class:`MatrixOfPairs`, but for the random numbers of
    dropout.

    Args:
        value: States of the known pairs, ``[E, H]``.
        far: State of a pair that is not known, ``[H]``.
        some: Pairs that have a state, ``[B, L, L]``.
        pairs: Sub-slice and places of each known pair, ``[3, E]``.
        real: Nodes that are no padding, ``[B, L]``.
        scale: Factor of products of queries and keys.
    """

    def __init__(
        self,
        value: Tensor,
        far: Tensor,
        some: Tensor,
        pairs: tuple[Tensor, Tensor, Tensor],
        real: Tensor,
        scale: float,
    ):
        from spatiagraph.kernels._triton_pairs import FAR, NONE

        self.value, self.far, self.scale = value, far, scale
        self.length = real.sum(1).int()
        self.index = torch.where(some, FAR, NONE).int()
        graph, i, j = pairs
        number = torch.arange(len(value), device=value.device, dtype=torch.int32)
        self.index[graph, i, j] = number
        self.index[graph, j, i] = number + len(value)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        from spatiagraph.kernels._triton_pairs import PairAttention

        seed = torch.randint(2**62, ()) if dropout > 0 else None
        given = (q, k, v, self.value, self.far, self.index, self.length)
        message: Tensor = PairAttention.apply(*given, self.scale, dropout, seed)
        return message

    def dense(self) -> Tensor:
        return self._states()[self._row(self.index)].permute(0, 3, 1, 2)

    def at(self, graph: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return self._states()[self._row(self.index[graph, i, j])]

    def _states(self) -> Tensor:
        """States of known pairs, of far ones, and of none, ``[E + 2, H]``."""
        return torch.cat([self.value, self.far[None], torch.zeros_like(self.far)[None]])

    def _row(self, index: Tensor) -> Tensor:
        num = len(self.value)
        known = torch.where(index >= num, index - num, index)
        return torch.where(index < 0, num - 1 - index, known).long()
