"""Graph-native, modular toolkit for spatial transcriptomics.

Cells are graph nodes that carry genes, image and position; niches and tissue are pooled from them.
Importing does no work: sub-packages load when first used.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
