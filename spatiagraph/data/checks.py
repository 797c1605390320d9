"""Validation of slides: each error names the rows at fault and the way out."""

import difflib
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from spatiagraph.data.axes import x_before_y
from spatiagraph.data.image import SlideImage
from spatiagraph.data.image.tissue import tissue_share

MAX_OUTSIDE = 0.05
"""Share of cells that may lie outside of the image: segmentation puts some centres on its rim."""
_FEWEST_PLACED = 50  # cells that tell whether they lie on tissue
_SAMPLED = 5_000
_MOLECULES_SAMPLED = 100_000
_OWN_UM = 5.0  # about the radius of a cell
_FAR_FROM_OWN_UM = 50.0  # beyond the largest
_ON, _OFF = 0.8, 0.4  # share of cells on tissue that is plausible, and one that is not
_LISTED = 50  # names in a message; a slide has a million cells
FAR_UM = 1e9
"""A kilometre: coordinates beyond are damage, and their squares could overflow."""
_TOO_MANY = 2.0**24
"""The first count that float32 may have rounded; no cell and no spot has as many molecules."""
_BLOCK = 1 << 24  # values looked at in one go, so that the check needs no second matrix


def name_rows(names: Sequence[object] | pd.Index, rows: NDArray[np.integer]) -> str:
    """Up to five rows with their ids, and how many more there are.

    Examples:
        >>> name_rows(["a", "b", "c"], np.array([0, 2]))
        "row 0 'a', row 2 'c'"
    """
    text = ", ".join(f"row {row} {str(names[row])!r}" for row in rows[:5].tolist())
    return text + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")


def nearest(wanted: str, keys: Collection[str]) -> str:
    """A hint at the existing keys closest to the one that was looked for; of many, some are listed.

    Examples:
        >>> nearest("spatial", ["X_pca", "spatial_px"])
        "Nearest: 'spatial_px'; there are: 'X_pca', 'spatial_px'"
    """
    if not keys:
        return "There are none"
    listed = ", ".join(repr(k) for k in sorted(keys)[:_LISTED])
    listed += f" and {len(keys) - _LISTED:,} more" if len(keys) > _LISTED else ""
    plain = [str(k).strip().casefold() for k in keys]
    close = difflib.get_close_matches(wanted.strip().casefold(), plain, n=3, cutoff=0.5)
    close = list(
        dict.fromkeys(k for c in close for k, p in zip(keys, plain, strict=True) if p == c)
    )
    hint = f"Nearest: {', '.join(repr(k) for k in close)}; there are: " if close else "There are: "
    return hint + listed


def check_names(names: pd.Index, what: str, mend: str) -> None:
    """Refuse names that occur more than once.

    Args:
        names: ``obs_names`` or ``var_names``.
        what: What they name, for the message: ``"cell ids"``.
        mend: What to do about it.

    Raises:
        ValueError: Some names are empty, or occur more than once.
    """
    if names.is_unique and "" not in names:
        return
    if "" in names:
        rows = np.flatnonzero(names == "")
        raise ValueError(
            f"Expected {what} that are not empty, got {len(rows)} of {len(names)} that are (first: "
            f"row {rows[0]}). Name them"
        )
    rows = np.flatnonzero(names.duplicated(keep=False))
    raise ValueError(
        f"Expected unique {what}, got {len(rows)} of {len(names)} that occur more than once: "
        f"{name_rows(names, rows)}. {mend}"
    )


def check_real(dtype: np.dtype, where: str) -> None:
    """Refuse what is not a real number: complex ones would lose a part, text has no value.

    Args:
        dtype: Type of the values.
        where: What they are, for the message.

    Raises:
        ValueError: They are of another kind.
    """
    if dtype.kind not in "biuf":
        mend = "Take the part that was measured" if dtype.kind == "c" else "Convert them to numbers"
        raise ValueError(f"Expected real numbers in {where}, got {dtype}. {mend}")


def as_positions(values: ArrayLike, where: str) -> NDArray[np.float64]:
    """Coordinates as an array of its own.

    Args:
        values: ``[N, 2]`` in any form, a table included.
        where: Where they are from, for the message. Columns of a table that are called y and x,
            or row and column, are turned around; a third of equal values is left out.

    Raises:
        ValueError: They are no real numbers.
    """
    if isinstance(values, pd.DataFrame):
        values = values.to_numpy()[:, x_before_y(values.columns.tolist())]
    array = np.asarray(values)
    if (
        array.ndim == 2
        and array.shape[1] == 3
        and len(array)
        and (array[:, 2] == array[0, 2]).all()
    ):
        array = array[:, :2]  # one plane
    if array.dtype.kind == "O":  # a table with whole and fractional numbers, or with text
        try:
            return np.array(array, dtype=np.float64)
        except (TypeError, ValueError) as err:
            raise ValueError(f"Expected numbers in {where}: {err}") from err
    check_real(array.dtype, where)
    return np.array(array, dtype=np.float64)


def check_positions(pos: NDArray[np.float64], names: pd.Index, file: str = "") -> None:
    """Refuse positions that are not ``[N, 2]`` finite numbers.

    Args:
        pos: Cell centres, ``[N, 2]``.
        names: Cell ids, ``[N]``.
        file: Name of the file they are from, for the message.

    Raises:
        ValueError: Wrong shape, NaN, infinity, or a number that is no place on a slide.
    """
    of = f" in {file}" if file else ""
    if pos.ndim != 2 or pos.shape[1] != 2:
        hint = " Keep the x and y columns" if pos.ndim == 2 and pos.shape[1] > 2 else ""
        raise ValueError(
            f"Expected positions of shape [{len(names)}, 2] (x, y){of}, got "
            f"{list(pos.shape)}.{hint}"
        )
    rows = np.flatnonzero(~np.isfinite(pos).all(axis=1))
    if rows.size:
        raise ValueError(
            f"Expected finite coordinates{of}, got NaN or infinity for {rows.size} of {len(pos)} "
            f"cells: {name_rows(names, rows)}. Pass drop_unplaced=True to read(), or mend the table"
        )
    rows = np.flatnonzero((np.abs(pos) > FAR_UM).any(axis=1))
    if rows.size:
        raise ValueError(
            f"Expected coordinates within {FAR_UM:g} of 0{of}, got others for {rows.size} of "
            f"{len(pos)} cells: {name_rows(names, rows)}. Mend the table or drop these cells"
        )


def check_values(values: csr_matrix, names: pd.Index, *, integral: bool) -> None:
    """Refuse NaN, infinite, negative and, for counts, fractional expression values.

    Args:
        values: Expression, ``[N, G]``.
        names: Cell ids, ``[N]``.
        integral: Whether the values must be counts.

    Raises:
        ValueError: Names the cells, and says what the values look like instead of counts.
    """
    bad = _first_bad(values, lambda v: ~np.isfinite(v))
    if bad is not None:
        raise ValueError(
            f"Expected finite expression values, got NaN or infinity in {name_rows(names, bad)}. "
            "Drop those cells or set the entries to what was measured"
        )
    bad = _first_bad(values, lambda v: v < 0)
    if bad is not None:
        raise ValueError(
            f"Expected raw counts, got negative values in {name_rows(names, bad)}: this looks "
            "scaled or centred. Put the raw counts in layers['counts']"
        )
    if not integral:
        return
    bad = _first_bad(values, lambda v: v >= _TOO_MANY)
    if bad is not None:
        raise ValueError(
            f"Expected counts below {_TOO_MANY:,.0f}, got more in {name_rows(names, bad)} (largest "
            f"value {float(values.data.max()):.4g}). Is the file damaged? Intensities are read by "
            'expression="normalized"'
        )
    bad = _first_bad(values, lambda v: v != np.rint(v))
    if bad is not None:
        top = float(values.data.max())
        looks = "log-transformed" if top < 20 else "normalised"
        raise ValueError(
            f"Expected raw counts, got fractional values in {name_rows(names, bad)} (largest "
            f"value {top:.4g}): this looks {looks}. Put the raw counts in layers['counts'], or "
            'pass expression="normalized" to use the values as they are'
        )


def check_not_empty(values: csr_matrix, names: pd.Index, *, has_image: bool) -> None:
    """Refuse cells in which nothing was counted, but for a slide that was only photographed.

    Args:
        values: Expression without explicit negatives, ``[N, G]``.
        names: Cell ids, ``[N]``.
        has_image: Whether there is, or once was, a picture of the slide: nothing at all may be
            counted then.

    Raises:
        ValueError: Names the cells.
    """
    rows = np.flatnonzero(np.asarray(values.sum(axis=1)).ravel() == 0)
    if rows.size == len(names):
        if has_image:
            return
        raise ValueError(
            f"Expected counts, or an image of a slide that was only photographed, got no count in "
            f"all {len(names)} cells and no image. Pass its image=… to read()"
        )
    if rows.size:
        raise ValueError(
            f"Expected at least one count in each cell, got none in {rows.size} of {len(names)} "
            f"cells: {name_rows(names, rows)}. Pass drop_empty=True to read(), or filter them out"
        )


def check_own_molecules(
    transcripts: pd.DataFrame, pos: NDArray[np.float64], names: pd.Index
) -> str | None:
    """Refuse cells that lie among their own molecules only with x and y swapped.

    Args:
        transcripts: Molecules, with ``x_um``, ``y_um`` and maybe ``cell_id``.
        pos: Cell centres in µm, ``[N, 2]``.
        names: Cell ids, ``[N]``.

    Returns:
        A line if cells lie far from their molecules anyhow.

    Raises:
        ValueError: They are swapped.
    """
    if "cell_id" not in transcripts:
        return None
    step = max(1, len(transcripts) // _MOLECULES_SAMPLED)
    some = transcripts[["cell_id", "x_um", "y_um"]].iloc[::step]
    cell = names.get_indexer(pd.Index(some["cell_id"].to_numpy(dtype=object, na_value="")))
    own = pos[cell[cell >= 0]]
    if not len(own):
        return None
    xy = some[["x_um", "y_um"]].to_numpy(np.float64)[cell >= 0]
    apart, swapped = (float(np.median(np.hypot(*(xy - at).T))) for at in (own, own[:, ::-1]))
    if apart > _OWN_UM and swapped < apart / 3:
        raise ValueError(
            f"Expected cells among their own molecules, got them {apart:.0f} µm apart (median), "
            f"and {swapped:.0f} µm with x and y swapped: the table of cells or that of molecules "
            "has them the wrong way around. Rename its columns, or pass transcripts=False"
        )
    if apart <= _FAR_FROM_OWN_UM:
        return None
    return (
        f"Cells lie {apart:.0f} µm from their own molecules (median): one of both is in another "
        "unit, or of another slide. Check them, or pass transcripts=False"
    )


def check_image(image: SlideImage, pos: NDArray[np.float64], names: pd.Index) -> None:
    """Refuse an image that does not cover the cells, or only with x and y swapped.

    Args:
        image: The slide's image.
        pos: Cell centres in µm, ``[N, 2]``.
        names: Cell ids, ``[N]``.

    Raises:
        ValueError: More than 5 % of the cells lie outside, or most lie beside the tissue and would
            lie on it with x and y swapped; gives both extents in µm.
    """
    swapped = pos[:, ::-1]
    rows = np.flatnonzero(~np.asarray(image.covers(pos), dtype=bool))
    fits_swapped = np.mean(~np.asarray(image.covers(swapped), dtype=bool)) <= MAX_OUTSIDE
    if len(rows) <= MAX_OUTSIDE * len(pos):
        if fits_swapped:
            _check_not_swapped(image, pos)
        return
    x0, y0, x1, y1 = image.extent_um
    low, high = pos.min(axis=0), pos.max(axis=0)
    mend = (
        "With x and y swapped they lie on it: pass swap_xy=True to read(), or check "
        if fits_swapped
        else "Check "
    )
    raise ValueError(
        f"Expected an image that covers the cells, got {len(rows)} of {len(pos)} cells "
        f"({len(rows) / len(pos):.0%}) outside: {name_rows(names, rows)}. The image spans "
        f"x {x0:.4g} to {x1:.4g}, y {y0:.4g} to {y1:.4g} µm (mpp={image.mpp:.4g}), the cells "
        f"x {low[0]:.4g} to {high[0]:.4g}, y {low[1]:.4g} to {high[1]:.4g} µm. {mend}mpp, "
        "image_mpp and origin_um, and that the image belongs to this slide"
    )


def _check_not_swapped(image: SlideImage, pos: NDArray[np.float64]) -> None:
    """Refuse cells beside the tissue that would lie on it with x and y swapped."""
    if len(pos) < _FEWEST_PLACED:
        return
    sample = pos[:: max(1, len(pos) // _SAMPLED)]
    there = tissue_share(image, sample)
    if not there < _OFF:  # nor NaN
        return
    swapped = tissue_share(image, sample[:, ::-1])
    if swapped > _ON:
        raise ValueError(
            f"Expected cells on the tissue that the image shows, got {there:.0%} of them on it and "
            f"{swapped:.0%} with x and y swapped. Pass swap_xy=True to read(), or image=False"
        )
    warnings.warn(
        f"{there:.0%} of the cells lie on what looks like tissue in the image. Check that it is "
        "that of this slide, its scale and its place: image_mpp=…, origin_um=…",
        stacklevel=6,
    )


def _blocks(values: csr_matrix) -> Iterator[tuple[int, NDArray]]:
    for start in range(0, len(values.data), _BLOCK):
        yield start, values.data[start : start + _BLOCK]


def _first_bad(
    values: csr_matrix, is_bad: Callable[[NDArray], NDArray]
) -> NDArray[np.int64] | None:
    """Rows that hold a bad value, ascending; ``None`` if there are none."""
    hits = [start + np.flatnonzero(is_bad(block)) for start, block in _blocks(values)]
    at = np.concatenate(hits) if hits else np.empty(0, np.int64)
    if not at.size:
        return None
    return np.unique(np.searchsorted(values.indptr, at, side="right") - 1)
