"""Pictures in the manner of scanpy and squidpy: ``ax=`` to draw into, ``save=`` to write a file."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
