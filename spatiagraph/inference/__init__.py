"""Trained models asked: embeddings, imputed genes, cells elsewhere, images of another state."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
