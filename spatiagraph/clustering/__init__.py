"""Clusters of cells by an embedding, and votes over several clusterings. Arrays in, arrays out."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
