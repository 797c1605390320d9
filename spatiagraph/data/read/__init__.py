"""Files and vendor folders → slides in µm; one module per layout."""

from spatiagraph.data.read.dispatch import read

__all__ = ["read"]
