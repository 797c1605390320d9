"""Models composed from the blocks of :mod:`spatiagraph.nn`."""
