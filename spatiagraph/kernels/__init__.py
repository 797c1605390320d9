"""The few numerical primitives that decide speed: one signature, several backends."""

from spatiagraph.kernels.attention import neighbor_attention, neighbor_self_attention
from spatiagraph.kernels.backends import Backend, backends, use
from spatiagraph.kernels.segment import (
    attention_pool,
    segment_max,
    segment_mean,
    segment_softmax,
    segment_sum,
)

__all__ = [
    "Backend",
    "attention_pool",
    "backends",
    "neighbor_attention",
    "neighbor_self_attention",
    "segment_max",
    "segment_mean",
    "segment_softmax",
    "segment_sum",
    "use",
]
