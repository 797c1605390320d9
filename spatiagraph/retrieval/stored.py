"""Embeddings of a cohort as one array ``[N, D]``, read from the disk by blocks."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spatiagraph import keys
from spatiagraph.data.cohort import Cohort
from spatiagraph.data.cohort.embedded import embedded_slides
from spatiagraph.retrieval.selection import X_UM, Y_UM
from spatiagraph.retrieval.slides import SlideItems

_BLOCK = 65_536  # rows


class StoredRows:
    """Rows of several arrays on the disk, one after the other.

    Args:
        parts: The arrays, ``[n, D]`` each.
        rows: Rows of each that count, ascending; all of them when ``None``.
    """

    def __init__(self, parts: Sequence[Any], rows: Sequence[NDArray[np.int64] | None]):
        self._parts, self._rows = list(parts), list(rows)
        sizes = [p.shape[0] if r is None else len(r) for p, r in zip(parts, rows, strict=True)]
        self._ends = np.cumsum(sizes).tolist()
        self.shape = (sum(sizes), int(parts[0].shape[1]))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Some rows, which ascend, ``[R, D]``."""
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        found = np.empty((len(index), self.shape[1]), dtype=np.float32)
        done = 0
        while done < len(index):
            part = bisect_right(self._ends, int(index[done]))
            first = self._ends[part - 1] if part else 0
            stop = int(np.searchsorted(index, self._ends[part]))
            own = index[done:stop] - first
            chosen = self._rows[part]
            found[done:stop] = _some(self._parts[part], own if chosen is None else chosen[own])
            done = stop
        return found


def concatenate_cohort(cohort: Cohort, key: str) -> SlideItems:
    """The cells of a cohort one after the other, in the order of the store.

    Embeddings stay on the disk; the table of cells is in memory.

    Args:
        cohort: The cohort.
        key: Slot of the embedding in ``obsm``.

    Raises:
        ValueError: A slide lacks the embedding, or they are of different models.
    """
    parts, rows, tables, models = [], [], [], set()
    for slide in embedded_slides(cohort.part(), key):
        there = _with_embedding(slide.values)
        obs = slide.obs.assign(**{X_UM: slide.pos[:, 0], Y_UM: slide.pos[:, 1]})
        obs[keys.SLIDE_ID] = pd.Categorical([slide.slide_id] * len(obs))
        parts.append(slide.values)
        rows.append(None if len(there) == len(obs) else there)
        tables.append(obs if len(there) == len(obs) else obs.iloc[there])
        models.add(slide.weights)
    if len({part.shape[1] for part in parts}) > 1 or len(models) > 1:
        raise ValueError(f"Expected slides embedded with one model, got {sorted(map(str, models))}")
    return SlideItems(StoredRows(parts, rows), pd.concat(tables), models.pop())


def _with_embedding(values: Any) -> NDArray[np.int64]:
    """Rows that are not all NaN, as those of cells without a niche are."""
    found = []
    for start in range(0, values.shape[0], _BLOCK):
        block = np.asarray(values[start : start + _BLOCK])
        found.append(start + np.flatnonzero(~np.isnan(block).all(1)))
    return np.concatenate(found)


def _some(values: Any, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Ascending rows of an array on the disk: the stretch they lie in is read at once."""
    first, last = int(rows[0]), int(rows[-1])
    if last - first < 4 * len(rows):
        return np.asarray(values[first : last + 1])[rows - first]
    return np.asarray(values.oindex[rows] if hasattr(values, "oindex") else values[rows])
