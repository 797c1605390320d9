"""Counts → tokens, for all cells at once: gene ranks, quantile bins, sampled counts."""

from spatiagraph.data.tokens.bins import bin_tokens
from spatiagraph.data.tokens.location import location_index
from spatiagraph.data.tokens.medians import StreamingMedians, fit_medians
from spatiagraph.data.tokens.orthologs import Orthologs, merge_orthologs
from spatiagraph.data.tokens.rank import RankTokens, rank_tokens
from spatiagraph.data.tokens.sample import CountTokens, count_tokens

__all__ = [
    "CountTokens",
    "Orthologs",
    "RankTokens",
    "StreamingMedians",
    "bin_tokens",
    "count_tokens",
    "fit_medians",
    "location_index",
    "merge_orthologs",
    "rank_tokens",
]
