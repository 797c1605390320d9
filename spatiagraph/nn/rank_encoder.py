"""Encoders of cells on their own for models of their surroundings: genes of a cell → a unit vector.

Shape letters: ``N`` cells, ``L`` tokens of the longest cell of a chunk, ``C`` channels.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from spatiagraph.nn.cell_graph import Cells
from spatiagraph.nn.config import Configurable
from spatiagraph.nn.genes import GeneEncoder
from spatiagraph.nn.token_transformer import TokenTransformer


class PaddedTokens(NamedTuple):
    """Tokens of some cells on a rectangle.

    Attributes:
        ids: Token ids, ``[n, L]``.
        real: Tokens that are no padding, ``[n, L]``.
    """

    ids: Tensor
    real: Tensor


def padded_tokens(tokens: Tensor, rows: Tensor, pad: int = 0) -> PaddedTokens:
    """Ragged tokens of some cells, padded to the longest of these.

    Args:
        tokens: Sparse CSR ``[N, L]``: values are ids, columns places, as
            :class:`~spatiagraph.data.recipe.Ranks` gives them.
        rows: The cells, ``[n]``.
        pad: Id of the padding.

    Examples:
        >>> from spatiagraph.data.convert.counts import ragged_tensor
        >>> import numpy as np
        >>> ragged = ragged_tensor(np.array([5, 6, 7]), np.array([0, 1, 3]))
        >>> padded_tokens(ragged, torch.tensor([1, 0])).ids
        tensor([[6, 7],
                [5, 0]])
    """
    ptr, values = tokens.crow_indices(), tokens.values()
    start, length = ptr[rows], ptr[rows + 1] - ptr[rows]
    place = torch.arange(int(length.max()) if len(rows) else 0, device=values.device)
    real = place < length.unsqueeze(1)
    if not values.numel():
        return PaddedTokens(place.new_full(real.shape, pad), real)
    at = (start.unsqueeze(1) + place).clamp(max=values.numel() - 1)
    return PaddedTokens(torch.where(real, values[at], pad), real)


class RankEncoder(Configurable):
    r"""Transformer on the ranked genes of a cell, and a unit vector of it.

    Genes come in order of their level relative to the usual one, as in `Geneformer
    <https://doi.org/10.1038/s41586-023-06139-9>`_; the state of the first token, ``<cls>``, is
    mapped to a vector of length 1, as in SToFM (`arXiv:2507.11588
    <https://arxiv.org/abs/2507.11588>`_). The defaults are the published size.

    Args:
        num_tokens: Rows of the embedding table: the tokens of a
            :class:`~spatiagraph.data.GeneVocabulary`.
        channels: Size of a token and of the vector, :math:`C`.
        num_layers: Layers.
        heads: Attention heads; must divide ``channels``.
        hidden_channels: Width of the MLPs.
        max_len: Most tokens of a cell.
        dropout: Dropout of tokens, attention weights and MLPs.
        pad: Id of the padding.

    Shapes:
        - **cells**: :class:`Cells` with ``gene_ids``
        - **output**: ``[N, C]``, each of length 1; 0 of a row without any token

    Raises:
        ValueError: If ``heads`` does not divide ``channels``.
    """

    reads = "gene_ids"
    chunk_size = 32
    """Cells at once, of like length: memory, not the result."""

    def __init__(
        self,
        num_tokens: int,
        channels: int = 256,
        num_layers: int = 6,
        heads: int = 4,
        *,
        hidden_channels: int = 512,
        max_len: int = 2048,
        dropout: float = 0.02,
        pad: int = 0,
    ):
        super().__init__()
        self.channels, self.max_len, self.pad = channels, max_len, pad
        self.token = nn.Embedding(num_tokens, channels, padding_idx=pad)
        self.position = nn.Embedding(max_len, channels)
        self.norm = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)
        self.transformer = TokenTransformer(
            channels,
            num_layers,
            heads,
            dropout=dropout,
            hidden_channels=hidden_channels,
            pre_norm=False,
            activation="relu",
        )
        self.pool = nn.Linear(channels, channels)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.LayerNorm):
                module.eps = 1e-12  # as in BERT

    def forward(self, cells: Cells) -> Tensor:
        tokens = cells.gene_ids
        if tokens is None:
            raise ValueError("Expected ranked genes 'gene_ids': the recipe needs tokens=Ranks(…)")
        length = tokens.crow_indices().diff()
        z = self.pool.weight.new_zeros(len(length), self.channels)
        order = length.argsort(stable=True)
        order = order[length[order] > 0]
        if not order.numel():
            return z
        chunks = order.split(self.chunk_size)
        states = [self.states(*padded_tokens(tokens, rows, self.pad))[:, 0] for rows in chunks]
        found = self.vectors(torch.cat(states))
        return z.to(found.dtype).index_copy(0, order, found)

    def states(self, ids: Tensor, real: Tensor) -> Tensor:
        """State of each token of padded cells, ``[n, L, C]``.

        Args:
            ids: Token ids, ``[n, L]``.
            real: Tokens that are no padding, ``[n, L]``.
        """
        place = torch.arange(ids.size(1), device=ids.device)
        h = self.dropout(self.norm(self.token(ids) + self.position(place)))
        return self.transformer(h, ~real)

    def vectors(self, first: Tensor) -> Tensor:
        """Unit vectors of cells from the states of their first tokens, ``[n, C]``."""
        return normalize(self.pool(first), dim=1)


class ProfileEncoder(Configurable):
    """Principal components of the log-normalised profile of a cell, as a unit vector.

    The stand-in for a trained encoder: it has no weights to learn, and starts from a sample of
    cells by :meth:`initialize`.

    Args:
        num_genes: Panel size, :math:`G`.
        channels: Size of the vector, :math:`C`.

    Shapes:
        - **cells**: :class:`Cells` with counts ``x`` ``[N, G]``
        - **output**: ``[N, C]``, each of length 1
    """

    reads = "x"

    def __init__(self, num_genes: int, channels: int = 256):
        super().__init__()
        self.channels = channels
        self.genes = GeneEncoder(
            num_genes, channels, hidden_channels=0, transform="log1p", fixed_basis=True
        )

    def forward(self, cells: Cells) -> Tensor:
        if cells.x is None:
            raise ValueError("Expected counts 'x', got none")
        return normalize(self.genes(cells.x, cells.gene_mask, cells.depth), dim=1)

    def initialize(self, x: Tensor, gene_mask: Tensor, depth: Tensor, *, seed: int = 0) -> None:
        """Start from the principal components of a sample of cells.

        Args:
            x: Counts of the sample, ``[N, G]``.
            gene_mask: Measured genes, ``[N, G]``.
            depth: Total counts of each cell, ``[N]``.
            seed: Seed of the decomposition.
        """
        self.genes.initialize(x, gene_mask, depth, seed=seed)
