"""The few numerical primitives that decide speed: one signature, several backends."""

from spatiagraph.kernels.attention import neighbor_attention, neighbor_self_attention
from spatiagraph.kernels.backends import use
from spatiagraph.kernels.inventory import Backend, backends
from spatiagraph.kernels.residual import norm_linear, residual_linear, residual_mlp
from spatiagraph.kernels.segment import (
    segment_max,
    segment_mean,
    segment_softmax,
    segment_sum,
)

__all__ = [
    "Backend",
    "backends",
    "neighbor_attention",
    "neighbor_self_attention",
    "norm_linear",
    "residual_linear",
    "residual_mlp",
    "segment_max",
    "segment_mean",
    "segment_softmax",
    "segment_sum",
    "use",
]
