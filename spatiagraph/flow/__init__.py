"""The mathematics of transport: who becomes whom, along which path, integrated how.

No network in here, and nothing about cells.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
