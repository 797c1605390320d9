"""Molecules of whole sections: read some rows at a time, kept on disk in tiles, cut at outlines."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
