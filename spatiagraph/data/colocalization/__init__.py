"""Molecules of each cell → pairs of genes that lie together in it, and which beat chance."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
