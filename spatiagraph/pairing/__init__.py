"""Weak pairs: cells in one state beside cells of the same niche in another, by expression.

No cell is ever seen in two states. Pairs are therefore found by transport in gene space; images are
not read, so that look-alikes are not favoured.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
