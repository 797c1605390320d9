"""Entropic optimal transport between two clouds of points, and pairs sampled from it."""

from spatiagraph.flow.coupling.cost import cost_scale, pair_cost
from spatiagraph.flow.coupling.match import Match, row_confidence
from spatiagraph.flow.coupling.pairing import Coupling, couple, couple_many
from spatiagraph.flow.coupling.plan import transport_plan

__all__ = [
    "Coupling",
    "Match",
    "cost_scale",
    "couple",
    "couple_many",
    "pair_cost",
    "row_confidence",
    "transport_plan",
]
