"""Short hashes of what a slide holds: equal for slides that are the same."""

import hashlib

import numpy as np
import pandas as pd

from spatiagraph.data.slide import Slide

_LENGTH = 16  # digits of a hash
_LOOKS, _SIDE_PX = 64, 16  # at how much of an image a hash looks: all of it may not fit in memory


def content_hash(slide: Slide) -> str:
    """Short hash of the counts, genes and positions of a slide, and of its image at some cells."""
    counts = slide.counts
    digest = hashlib.sha256()
    for array in (counts.indptr, counts.indices, counts.data, slide.pos):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update("\n".join(slide.symbols).encode())
    if slide.image is not None:
        rows = np.unique(np.linspace(0, slide.num_cells - 1, _LOOKS).astype(np.int64))
        crops, _ = slide.image.crops(slide.pos[rows], _SIDE_PX * slide.image.mpp, _SIDE_PX)
        digest.update(crops.tobytes())
    return digest.hexdigest()[:_LENGTH]


def table_hash(slide: Slide) -> str:
    """Short hash of what else a slide says of cells: ids, columns of ``obs``, slots of ``obsm``.

    Args:
        slide: The slide.
    """
    adata = slide.adata
    digest = hashlib.sha256(f"{slide.slide_id} {slide.donor} {slide.expression}".encode())
    columns: dict[str, object] = {"": adata.obs_names, **{str(c): adata.obs[c] for c in adata.obs}}
    for name, column in columns.items():
        text = pd.Series(np.asarray(column, dtype=object)).astype(str)
        digest.update(name.encode())
        digest.update(pd.util.hash_array(text.to_numpy(dtype=object), categorize=True).tobytes())
    for name, values in sorted(adata.obsm.items()):
        digest.update(str(name).encode())
        if isinstance(values, np.ndarray):
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:_LENGTH]
