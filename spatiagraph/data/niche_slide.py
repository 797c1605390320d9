"""Niches in place of cells: their expression, their embeddings, the tissue around them."""

import anndata
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from spatiagraph import keys
from spatiagraph.data.recipe.rule import obs_column
from spatiagraph.data.slide import Slide

WINDOW = "window_um"
"""Column of ``obs`` with the side of the window around each niche."""


def slide_of_niches(
    slide: Slide, niche_key: str, *, margin_um: float = 50.0, min_cells: int = 10
) -> Slide:
    """A slide on which every niche is a cell, for pairs and images of whole niches.

    A niche lies in the middle of the box around its cells. It has the mean of the embeddings of its
    cells, the sum of their counts (the mean of normalised expression), and a square window as wide
    as the longer side of the box and a margin on all four sides. What takes cells then takes
    niches: :func:`~spatiagraph.data.loader.read_crops`, with ``Crop(None, 64,
    window_key="window_um")``, :class:`~spatiagraph.data.loader.PairLoader`, a generator
    (whose window is one for all).

    Args:
        slide: Cells.
        niche_key: ``obs`` column of niches; a cell without one is in none.
        margin_um: Tissue shown around the box.
        min_cells: Cells below which a niche is left out.

    Returns:
        A slide with the names of the niches, ``obs["num_cells"]``, ``obs["window_um"]``, and the
        image of the cells.

    Raises:
        ValueError: There is no such column, the margin is negative, or no niche has enough cells.
    """
    if not 0 <= margin_um < np.inf:
        raise ValueError(f"Expected 'margin_um' of 0 or more, got {margin_um}")
    code, names = pd.factorize(obs_column(slide, niche_key), sort=True)
    size = np.bincount(code[code >= 0], minlength=len(names))
    kept = np.flatnonzero(size >= max(min_cells, 1))
    if not len(kept):
        raise ValueError(
            f"Expected niches of {min_cells} cells in obs[{niche_key!r}] of slide "
            f"{slide.slide_id!r}, got {size.max(initial=0)} at most: lower min_cells"
        )
    cells = np.flatnonzero(code >= 0)
    box = pd.DataFrame(slide.pos[cells]).groupby(code[cells]).agg(["min", "max"]).loc[kept]
    low, high = (box.xs(end, axis=1, level=1).to_numpy() for end in ("min", "max"))
    total = csr_matrix(
        (np.ones(len(cells)), (code[cells], cells)), shape=(len(names), slide.num_cells)
    )[kept]
    mean = csr_matrix(total.multiply(1 / size[kept][:, None]))
    obs = pd.DataFrame(
        {
            "num_cells": size[kept],
            WINDOW: (high - low).max(axis=1) + 2 * margin_um,
        },
        index=pd.Index([str(name) for name in names[kept]]),
    )
    counted = slide.expression == "counts"
    values = (total if counted else mean) @ slide.counts
    adata = anndata.AnnData(csr_matrix(values, dtype=np.float32), obs, slide.adata.var.copy())
    for key, value in slide.adata.obsm.items():
        if key.startswith("X_"):
            adata.obsm[key] = (mean @ np.asarray(value)).astype(np.float32)
    adata.obsm[keys.SPATIAL] = (low + high) / 2
    adata.uns.update(slide.adata.uns)
    return Slide(
        adata,
        slide.image,
        slide_id=slide.slide_id,
        donor=slide.donor,
        expression=slide.expression,
        assume_um=True,  # centres of niches are farther apart than cells are
    )
