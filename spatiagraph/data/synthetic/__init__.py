"""Synthetic tissue whose cell types, niches and regions are known."""

from spatiagraph.data.synthetic.tissue import make_tissue

__all__ = ["make_tissue"]
