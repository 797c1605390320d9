"""Checks that nothing is on both sides of a split."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from spatiagraph.graph.points import as_points, slide_rows


def away_from(
    pos: ArrayLike, cells: ArrayLike, margin_um: float, *, slide: ArrayLike | None = None
) -> NDArray[np.bool_]:
    """Mask of cells that lie farther than a margin from all of the given cells.

    A training set without the rim of the test blocks is ``(folds != 0) & away_from(pos,
    folds == 0, 50.0)``.

    Args:
        pos: Cell centres in µm, ``[N, 2]``.
        cells: Cells to stay away from: row numbers, or a mask ``[N]``.
        margin_um: Least distance, exclusive; the reach of the model is a good choice.
        slide: Section of each cell, ``[N]``; cells of different sections are far apart.

    Returns:
        ``[N]``.

    Raises:
        ValueError: ``margin_um`` is negative or not finite.

    Examples:
        >>> away_from([[0, 0], [3, 0], [8, 0]], [0], margin_um=5)
        array([False, False,  True])
    """
    points = as_points(pos)
    if not (np.isfinite(margin_um) and margin_um >= 0):
        raise ValueError(f"Expected 'margin_um' of at least 0, got {margin_um}")
    near_to = _as_mask(cells, len(points), "cells")
    away = np.ones(len(points), dtype=bool)
    for rows in slide_rows(slide, len(points)):
        chosen = points[rows[near_to[rows]]]
        if len(chosen):
            away[rows] = cKDTree(chosen).query(points[rows])[0] > margin_um
    return away


def check_no_leak(
    train: ArrayLike,
    test: ArrayLike,
    *,
    cell_id: ArrayLike | None = None,
    donor: ArrayLike | None = None,
    slide: ArrayLike | None = None,
    pos: ArrayLike | None = None,
    margin_um: float = 0.0,
) -> None:
    """Refuse a split that lets a test cell, its donor, its slide or its neighbours into training.

    What is given is checked. Positions mean a split within slides: a slide may then be on both
    sides, and no training cell may lie within the margin of a test cell.

    Args:
        train: Training cells (or slides): row numbers, or a mask ``[N]``.
        test: Test cells, likewise.
        cell_id: Name of each cell in the cohort, ``[N]``.
        donor: Donor of each cell, ``[N]``, none of whom may be on both sides.
        slide: Section of each cell, ``[N]``.
        pos: Cell centres in µm, ``[N, 2]``.
        margin_um: Least distance between the sides, exclusive; 0 refuses equal positions.

    Raises:
        ValueError: There is a leak; names the rows, donors or slides, and the way out. Or a side
            is empty.

    Examples:
        >>> check_no_leak([0, 1], [2], donor=["ann", "ann", "bob"])
    """
    num = _num_entries([train, test], [cell_id, donor, slide, pos])
    sides = [_as_mask(train, num, "train"), _as_mask(test, num, "test")]
    for name, side in zip(("train", "test"), sides, strict=True):
        if not side.any():
            raise ValueError(f"Expected cells on both sides, got none in '{name}'")
    both = np.flatnonzero(sides[0] & sides[1])
    if both.size:
        raise ValueError(
            f"Expected 'train' and 'test' without a common cell, got {both.size} in both "
            f"(first: {both[:5].tolist()})"
        )
    if donor is not None:
        _refuse_shared(donor, sides, "donor", "Split by donor")
    if slide is not None and pos is None:
        _refuse_shared(
            slide, sides, "slide", "Split by slide, or pass pos=… to split within slides"
        )
    if cell_id is not None:
        _refuse_shared(
            cell_id, sides, "cell", "Drop the copies, or put the slide into the names of its cells"
        )
    if pos is not None:
        near = np.flatnonzero(sides[0] & ~away_from(pos, sides[1], margin_um, slide=slide))
        if near.size:
            raise ValueError(
                f"Expected training cells more than {margin_um:g} µm from all test cells, got "
                f"{near.size} of {int(sides[0].sum())} that are nearer (first rows: "
                f"{near[:5].tolist()}). Keep those that away_from(pos, test, {margin_um:g}) keeps"
            )


def _as_mask(rows: ArrayLike, num: int, name: str) -> NDArray[np.bool_]:
    array = np.asarray(rows)
    if array.dtype == bool:
        if array.shape != (num,):
            raise ValueError(
                f"Expected '{name}' with one entry for each of {num} cells, got shape "
                f"{list(array.shape)}"
            )
        return array
    mask = np.zeros(num, dtype=bool)
    if array.size:
        if not np.issubdtype(array.dtype, np.integer) or array.min() < 0 or array.max() >= num:
            raise ValueError(f"Expected '{name}' as a mask or as rows in [0, {num}), got {rows!r}")
        mask[array] = True
    return mask


def _num_entries(sides: list[ArrayLike], others: list[ArrayLike | None]) -> int:
    """Number of cells that the arguments speak of."""
    for array in others:
        if array is not None:
            return len(np.asarray(array))
    arrays = [np.asarray(side) for side in sides]
    masks = [len(array) for array in arrays if array.dtype == bool]
    return masks[0] if masks else max((int(a.max()) + 1 for a in arrays if a.size), default=0)


def _refuse_shared(
    values: ArrayLike | pd.Series, sides: list[NDArray[np.bool_]], what: str, mend: str
) -> None:
    """Refuse a name that occurs on both sides."""
    names = pd.Series(values).reset_index(drop=True)
    if names.shape != sides[0].shape:
        raise ValueError(f"Expected a {what} for each of {len(sides[0])} entries, got {len(names)}")
    missing = np.flatnonzero(names.isna() & (sides[0] | sides[1]))
    if missing.size:
        raise ValueError(
            f"Expected a {what} for each entry, got none for {missing.size} of them "
            f"(first: {missing[:5].tolist()})"
        )
    shared = sorted(set(names[sides[0]]) & set(names[sides[1]]), key=str)
    if shared:
        more = f" and {len(shared) - 5} more" if len(shared) > 5 else ""
        raise ValueError(
            f"Expected no {what} in both 'train' and 'test', got "
            f"{', '.join(repr(s) for s in shared[:5])}{more} in both. {mend}"
        )
