"""Domains of tissue: embedders, clusterings of them and a vote over many, for one slide or more."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
