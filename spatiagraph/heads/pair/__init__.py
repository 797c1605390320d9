"""Weak pairs: cells in one state beside cells of the same niche in another, by expression alone.

No cell is ever seen in two states. Pairs are therefore found by transport in gene space; images are
not read, so that look-alikes are not favoured.
"""

from spatiagraph.heads.pair.cells import pair_states
from spatiagraph.heads.pair.niches import pair_niches
from spatiagraph.heads.pair.signature import Signature, gene_signature, morphology_signature
from spatiagraph.heads.pair.transitions import Transition, as_transitions

__all__ = [
    "Signature",
    "Transition",
    "as_transitions",
    "gene_signature",
    "morphology_signature",
    "pair_niches",
    "pair_states",
]
