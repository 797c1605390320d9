"""A small image of a slide where scanpy and squidpy look for one."""

from collections.abc import Mapping

import numpy as np
from anndata import AnnData

from spatiagraph import keys
from spatiagraph.data.scale import MADE_BY, is_preview
from spatiagraph.data.slide import Slide
from spatiagraph.data.units import neighbor_distance

_MAX_PX = 1200
_DISC = 0.9  # of the distance between neighbours


def add_preview(slide: Slide, *, max_px: int = _MAX_PX) -> None:
    """Put a small image of a slide into ``uns["spatial"]``, as scanpy and squidpy draw on it.

    It covers the area from the origin of the coordinates, which these take to be the corner of the
    image; scale factors are pixels per µm. What is there already is left as it is.

    Args:
        slide: The slide; nothing is added where it has no image.
        max_px: Longest side in pixels.
    """
    adata = slide.adata
    there = adata.uns.get(keys.SPATIAL)
    if slide.image is None or (isinstance(there, Mapping) and len(there) and not _ours(adata)):
        return
    x0, y0, x1, y1 = slide.image.extent_um
    if x1 <= 0 or y1 <= 0:
        return  # all of it lies where those do not draw
    share = max(x1 - x0, y1 - y0) / max(x1, y1, x1 - x0, y1 - y0)
    pixels, _ = slide.image.thumbnail(max(1, round(max_px * share)))
    scale = pixels.shape[1] / (x1 - x0)  # px per µm
    left, top = round(x0 * scale), round(y0 * scale)
    pixels = pixels[max(-top, 0) :, max(-left, 0) :]
    beside = ((max(top, 0), 0), (max(left, 0), 0), (0, 0))
    library = {
        "images": {"hires": np.pad(pixels, beside, constant_values=255)},
        "scalefactors": {
            "tissue_hires_scalef": float(scale),
            "spot_diameter_fullres": _DISC * neighbor_distance(slide.pos),
        },
        "metadata": {"software": MADE_BY},
    }
    adata.uns[keys.SPATIAL] = {slide.slide_id.replace("/", "_"): library}


def _ours(adata: AnnData) -> bool:
    entries = adata.uns[keys.SPATIAL].values()
    return all(isinstance(entry, Mapping) and is_preview(entry) for entry in entries)
