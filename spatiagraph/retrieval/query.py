"""``Selection`` and ``Query``: the cells of slides whose like is searched for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spatiagraph import keys
from spatiagraph.data.slide import Slide
from spatiagraph.retrieval.filters import Filter
from spatiagraph.retrieval.selection import select_rows


@dataclass(frozen=True)
class Selection:
    """Cells that meet all conditions; all cells where there is none.

    Attributes:
        cells: Ids.
        region: Outline in µm, as :func:`~spatiagraph.retrieval.in_region` takes it.
        where: A condition, such as ``{"niche": "tumour edge"}``.
        slide: Name of their slide.
        name: Name of the region or condition in titles; what they are when not given.
    """

    cells: str | Sequence[str] | None = None
    region: Any = None
    where: Filter | None = None
    slide: str | None = None
    name: str | None = None

    def rows(self, obs: pd.DataFrame) -> NDArray[np.int64]:
        """Rows of the cells in a table of cells, ``[R]``, ascending.

        Arguments and errors are those of :func:`~spatiagraph.retrieval.select_rows`.
        """
        return select_rows(
            obs, cells=self.cells, slide=self.slide, region=self.region, where=self.where
        )

    def title(self, obs: pd.DataFrame, rows: NDArray[np.int64]) -> str:
        """Name of the cells, their slides and their number.

        Args:
            obs: The table of cells.
            rows: What :meth:`rows` found in it.
        """
        cells = [self.cells] if isinstance(self.cells, str) else list(self.cells or ())
        what = ", ".join([*cells, *self._conditions()]) or "all cells"
        slides = ", ".join(obs[keys.SLIDE_ID].iloc[rows].astype(str).unique())
        size = "" if len(rows) == 1 else f" ({len(rows):,} cells)"
        return f"{what} of {slides}{size}"

    def _conditions(self) -> list[str]:
        if self.name is not None:
            return [self.name]
        region = [] if self.region is None else ["a region"]
        if isinstance(self.where, dict):
            return region + [f"{column}={value}" for column, value in self.where.items()]
        return region + ([] if self.where is None else ["cells that meet a condition"])


@dataclass(frozen=True)
class Query:
    """Query of a search: cells of one or more slides.

    Attributes:
        name: What they are called.
        obs: All cells they were chosen from, with ``slide_id``, ``x_um`` and ``y_um``.
        chosen: Rows of ``obs``, ``[R]``.
        items: The same cells in the index, as far as they are in it.
        embeddings: Of all cells of ``obs``, ``[N, D]``, where the query is a slide of its own.
        section: That slide.
    """

    name: str
    obs: pd.DataFrame
    chosen: NDArray[np.int64]
    items: NDArray[np.int64]
    embeddings: NDArray[np.float32] | None = None
    section: Slide | None = None
