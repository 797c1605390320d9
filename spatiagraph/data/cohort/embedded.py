"""Embeddings and tables of a cohort without its counts: what an index or a map is made of."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spatiagraph import keys
from spatiagraph._reasons import reason
from spatiagraph.data.cohort.cohort import Cohort
from spatiagraph.data.cohort.layout import CELLS, ROW, TILE, Results, SlideFiles
from spatiagraph.data.cohort.part import CohortPart
from spatiagraph.data.cohort.tiles import DAMAGED
from spatiagraph.data.cohort.verifying import check_files
from spatiagraph.data.convert.embeddings import WIDTHS


class EmbeddedSlide(NamedTuple):
    """A slide of a cohort, without its counts; cells in the order of the store.

    Attributes:
        slide_id: Name of the slide.
        obs: Its columns, with the groups of each cell.
        pos: Cell centres in µm, ``[N, 2]``.
        values: Embedding of each cell, ``[N, D]``: an array on disk, read by slices.
        weights: Hash of the weights that made it.
    """

    slide_id: str
    obs: pd.DataFrame
    pos: NDArray[np.float64]
    values: Any
    weights: str | None


def embedded_slides(part: CohortPart, key: str) -> Iterator[EmbeddedSlide]:
    """Slides of a cohort one after the other, each with one of its embeddings.

    Args:
        part: The slides.
        key: Slot of ``obsm``.

    Raises:
        ValueError: A slide was not embedded, or is damaged.
    """
    for at, entry in enumerate(part.entries):
        folder, files = part.stores[at].folder, part.files(at)
        result = _result(files, key, entry.slide_id)
        read = ("obs", f"obsm/{key}", f"obsm/{keys.SPATIAL}")
        check_files(folder, files, entry.slide_id, [f"{CELLS}/{part}/" for part in read])
        try:
            obs, pos, values = _read(folder / CELLS, key)
        except DAMAGED as err:
            raise ValueError(
                f"Expected a slide in {str(folder)!r}, found it damaged: {reason(err)}"
            ) from err
        if len(obs) != entry.num_cells or values.shape[0] != len(obs) or len(pos) != len(obs):
            raise ValueError(f"Expected {entry.num_cells} cells in {str(folder)!r}, found others")
        for level in result.levels:
            group = keys.group_key("cohort", level)
            if group in obs:
                obs = obs.rename(columns={group: keys.group_key(result.name, level)})
        weights = result.record.get("weights_hash")
        obs = obs.drop(columns=[ROW, TILE])
        yield EmbeddedSlide(
            entry.slide_id, obs, pos, values, None if weights is None else str(weights)
        )


class EmbeddingNotes(NamedTuple):
    """Notes on how a cohort was embedded last.

    Attributes:
        name: Short name of the model.
        levels: Names of the levels above cells, from cells upwards.
        widths_um: Level → median diameter of its groups, of each slide.
    """

    name: str
    levels: list[str]
    widths_um: list[dict[str, float]]


def embedding_notes(part: CohortPart) -> EmbeddingNotes:
    """Read how a cohort was embedded last.

    Args:
        part: The slides.

    Raises:
        ValueError: A slide was not embedded, or by another model than the others.
    """
    found, widths = [], []
    for at, entry in enumerate(part.entries):
        results = part.files(at).results
        if not results:
            raise ValueError(
                f"Expected a cohort that `spatiagraph embed` has embedded, found no embeddings of "
                f"slide {entry.slide_id!r}"
            )
        found.append((results[-1].name, results[-1].levels))
        widths.append(_widths_um(part.stores[at].folder / CELLS))
    if any(each != found[0] for each in found):
        raise ValueError(
            f"Expected slides embedded with one model, got {sorted({name for name, _ in found})}"
        )
    return EmbeddingNotes(*found[0], widths)


def _widths_um(cells: Path) -> dict[str, float]:
    import zarr

    try:
        group = zarr.open_group(cells / "uns" / keys.UNS / WIDTHS, mode="r", zarr_format=3)
        return {str(name): float(np.asarray(array[...])) for name, array in group.arrays()}
    except DAMAGED as err:
        raise ValueError(
            f"Expected the sizes of groups in {str(cells)!r}, found none: {reason(err)}"
        ) from err


def _result(files: SlideFiles, key: str, slide_id: str) -> Results:
    for result in files.results:
        if key in result.slots:
            return result
    there = sorted(slot for result in files.results for slot in result.slots)
    raise ValueError(
        f"Expected obsm[{key!r}] in slide {slide_id!r} of the cohort, found {there}: embed it first"
    )


def stored_columns(cohort: Cohort) -> Iterator[pd.DataFrame]:
    """Columns of the cells of each slide of a cohort, without anything else of it.

    Args:
        cohort: The cohort.

    Raises:
        ValueError: A slide is damaged.
    """
    import zarr

    for slide_id in cohort.slide_ids:
        cells = cohort.cells(slide_id)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", category=UserWarning)
                group = zarr.open_group(cells, mode="r", zarr_format=3)
                yield anndata.io.read_elem(group["obs"])
        except DAMAGED as err:
            raise ValueError(
                f"Expected a slide in {str(cells)!r}, found it damaged: {reason(err)}"
            ) from err


def _read(cells: Path, key: str) -> tuple[pd.DataFrame, NDArray[np.float64], Any]:
    import zarr

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)
        group = zarr.open_group(cells, mode="r", zarr_format=3)
        obs = anndata.io.read_elem(group["obs"])
        pos = np.asarray(anndata.io.read_elem(group[f"obsm/{keys.SPATIAL}"]), dtype=np.float64)
    return obs, pos, zarr.open_array(cells / "obsm" / key, mode="r", zarr_format=3)
