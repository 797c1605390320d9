"""Counts → tokens, for all cells at once: gene ranks and quantile bins."""

from spatiagraph.data.tokens.bins import bin_tokens
from spatiagraph.data.tokens.location import location_index
from spatiagraph.data.tokens.medians import StreamingMedians, fit_medians
from spatiagraph.data.tokens.orthologs import Orthologs, merge_orthologs, read_orthologs
from spatiagraph.data.tokens.rank import (
    RaggedTokens,
    RankTokens,
    ragged_rank_tokens,
    rank_tokens,
)
from spatiagraph.data.tokens.sequences import CellSequences, Marks, cell_sequences

__all__ = [
    "CellSequences",
    "Marks",
    "Orthologs",
    "RaggedTokens",
    "RankTokens",
    "StreamingMedians",
    "bin_tokens",
    "cell_sequences",
    "fit_medians",
    "location_index",
    "merge_orthologs",
    "ragged_rank_tokens",
    "rank_tokens",
    "read_orthologs",
]
