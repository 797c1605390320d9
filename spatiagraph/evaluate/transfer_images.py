"""Genes of donors that were never seen, predicted from images, one left out."""

from collections.abc import Mapping
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from tqdm.auto import tqdm

from spatiagraph.data.splits import spatial_blocks
from spatiagraph.evaluate.baselines import Expression
from spatiagraph.evaluate.cells import Cells
from spatiagraph.evaluate.donor_folds import Embed, as_donors, leave_one_out
from spatiagraph.evaluate.genes import PANEL
from spatiagraph.evaluate.image_to_genes import score_image_to_genes
from spatiagraph.evaluate.inputs import UnscorableError, as_embedding


def score_transfer_images(
    features: Mapping[str, Embed],
    cells: Cells,
    donor: ArrayLike,
    *,
    image_mask: NDArray[np.bool_] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Score genes predicted from images of each donor in turn, learned on remaining donors.

    The protocol of :func:`~spatiagraph.evaluate.score_image_to_genes`. Genes and strength of the
    ridge are chosen on training donors: the strength on each of them left out, or on blocks of
    tissue where there is only one. Of up to 500 genes all are predicted, at median depth; of more,
    the 250 most variable, per million.

    Args:
        features: Name → function of the mask of training cells that gives image features of all
            cells, ``[N, F]``, which have seen no gene of the held-out donor. May be empty.
        cells: Cells of all donors.
        donor: Donor of each cell, ``[N]``.
        image_mask: Cells with an image, ``[N]``; all by default. The others take no part, and
            their features may hold anything.
        progress: Show a bar.

    Returns:
        One row per name or baseline (``train_mean``, ``depth_oracle``) and held-out donor with
        images: ``embedding``, ``donor``, ``pearson_mean``, ``pearson_given_depth``,
        ``pearson_median``, ``rmse``, ``mse``, ``num_cells`` and ``num_genes``.

    Raises:
        ValueError: A donor is missing, a slide has two, or arrays do not fit.
        UnscorableError: Fewer than two donors have images; or just two, and a slide has too few
            cells with an image for blocks.
    """
    num_cells, num_genes = cells.counts.shape
    who = as_donors(donor, num_cells)
    mask = np.ones(num_cells, dtype=bool) if image_mask is None else np.asarray(image_mask)
    if mask.shape != (num_cells,) or mask.dtype != bool:
        raise ValueError(
            f"Expected 'image_mask' of {num_cells} booleans, got {mask.dtype} of shape "
            f"{list(mask.shape)}"
        )
    rows = np.flatnonzero(mask)
    code, names = pd.factorize(who[rows])
    if len(names) < 2:
        raise UnscorableError(f"Expected at least two donors with images, got {len(names)}")
    groups = code if len(names) > 2 else _blocks(cells, rows)
    is_panel = num_genes <= PANEL
    tables = []
    folds = leave_one_out(who, cells.slide, names)
    bar = tqdm(folds, "genes from images", len(names), disable=not progress)
    for number, (name, train) in enumerate(bar):
        made = {key: as_embedding(f(train), key, among=mask) for key, f in features.items()}
        for key, z in made.items():
            if len(z) != num_cells:
                raise ValueError(f"Expected '{key}' with {num_cells} rows, got {len(z)}")
        table = score_image_to_genes(
            {key: z[rows] for key, z in made.items()},
            cells.counts[rows],
            code,
            groups=groups,
            genes="all" if is_panel else "var250",
            target=None if is_panel else 1e6,
            held_out=[number],
            expression=cast(Expression, cells.expression),
        )
        dropped = [*table.filter(regex="_std$"), "num_cells", "num_folds"]
        own = table.drop(columns=dropped).rename_axis("embedding").reset_index()
        own.insert(1, "donor", name)
        tables.append(own.assign(num_cells=int((code == number).sum())))
    return pd.concat(tables, ignore_index=True)


def _blocks(cells: Cells, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Blocks of tissue, each slide cut on its own."""
    slide = None if cells.slide is None else cells.slide[rows]
    try:
        return spatial_blocks(cells.pos[rows], slide=slide)
    except ValueError as err:  # too few cells
        raise UnscorableError(str(err)) from err
