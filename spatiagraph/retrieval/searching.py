"""Searches of an index: with embeddings, or with some of its own items."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spatiagraph._typed import typed
from spatiagraph.keys import SLIDE_ID
from spatiagraph.retrieval import backend
from spatiagraph.retrieval.allowed import (
    allowed_items,
    check_choice,
    check_rows,
    hits_table,
    said,
)
from spatiagraph.retrieval.apart import hits_apart, near_to
from spatiagraph.retrieval.calibration import SlideCalibration
from spatiagraph.retrieval.filters import Filter
from spatiagraph.retrieval.selection import X_UM, Y_UM, select_rows
from spatiagraph.retrieval.vectors import Metric, check_vectors, prepare


class ItemSearch:
    """Items with their vectors in a FAISS index and their metadata in a table.

    Everything that :class:`~spatiagraph.retrieval.NicheIndex` searches; its attributes are
    described there.
    """

    def __init__(
        self,
        index: Any,
        obs: pd.DataFrame,
        *,
        kind: backend.Kind,
        metric: Metric,
        seed: int,
        effort: int,
        recall: float,
        min_recall: float,
        model: str | None = None,
        key: str | None = None,
        calibration: SlideCalibration | None = None,
    ):
        self._index = index
        self._effort = effort
        self.obs = obs
        self.kind = kind
        self.metric = metric
        self.seed = seed
        self.recall = recall
        self.min_recall = min_recall
        self.model = model
        self.key = key
        self.calibration = calibration

    @property
    def num_items(self) -> int:
        """Number of items, :math:`N`."""
        return int(self._index.ntotal)

    @property
    def channels(self) -> int:
        """Size of an embedding, :math:`D`."""
        return int(self._index.d)

    def vectors(self, rows: Sequence[int] | NDArray[np.integer]) -> NDArray[np.float32]:
        """Embeddings of items as they are compared, ``[R, D]``.

        Calibrated if the index is, and of length one if the metric is cosine.
        """
        return backend.reconstruct(self._index, check_rows(rows, self.num_items))

    def select(
        self,
        *,
        cells: str | Sequence[str] | None = None,
        slide: str | None = None,
        region: Any = None,
        where: Filter | None = None,
    ) -> NDArray[np.int64]:
        """Rows of the items that meet all conditions, as queries.

        Arguments and errors are those of :func:`~spatiagraph.retrieval.select_rows`.

        Returns:
            ``[R]``, ascending.
        """
        return select_rows(self.obs, cells=cells, slide=slide, region=region, where=where)

    @typed
    def search_like(
        self,
        rows: Sequence[int] | NDArray[np.integer],
        k: int = 10,
        *,
        where: Filter | None = None,
        exclude: Filter | Sequence[int] | NDArray[np.integer] | None = None,
        include_query: bool = False,
        apart_um: float = 0.0,
        max_distance: float = np.inf,
    ) -> pd.DataFrame:
        """The items most like the mean of some items.

        Args:
            rows: Items of the one query ``[R]``, such as :meth:`select` returns, or of each of
                several ``[Q, R]``.
            k: Number of results per query.
            where: Only return items that meet a condition, as in :meth:`search`.
            exclude: Never return these, as in :meth:`search`.
            include_query: Whether items of the query itself may be returned.
            apart_um: Least distance in the tissue of results to the one query and to each other, so
                that they are different places; such as ``adata.uns["spatiagraph"]["width_um"]
                ["niche"]``, the diameter of a niche. There may be fewer than ``k`` then.
            max_distance: Distance beyond which items are no results of the one query.

        Returns:
            As :meth:`search`.

        Raises:
            ValueError: As :meth:`search`, or if there is no item in the query, or items are to lie
                apart that have no place.
        """
        groups = np.atleast_2d(check_rows(rows, self.num_items))
        if groups.size == 0:
            raise ValueError("Expected at least one item to search for its like, got none")
        if apart_um > 0 or np.isfinite(max_distance):
            return self._apart(groups, k, where, exclude, apart_um, max_distance)
        queries = backend.means(self._index, groups)
        mask, own = allowed_items(self.obs, where, exclude, len(groups))
        if not include_query and len(groups) == 1:
            mask = np.ones(self.num_items, dtype=bool) if mask is None else mask.copy()
            mask[groups[0]] = False
        elif not include_query:
            own = np.concatenate([own, groups], axis=1)
        check_vectors(queries, self.metric, "the mean of the query")
        return self._find(queries, k, mask, own, said(where, exclude) or "the query")

    def _apart(
        self,
        groups: NDArray[np.int64],
        k: int,
        where: Filter | None,
        exclude: Any,
        apart_um: float,
        max_distance: float,
    ) -> pd.DataFrame:
        """Results of one query that lie apart from it and from each other."""
        missing = [c for c in (SLIDE_ID, X_UM, Y_UM) if c not in self.obs]
        if len(groups) > 1 or (missing and apart_um > 0):
            raise ValueError(
                "Expected one query whose items have a place, to find what lies apart; got "
                + (f"no {', '.join(missing)} in obs" if missing else f"{len(groups)} queries")
            )
        mask, _ = allowed_items(self.obs, where, exclude, 1)
        allowed = np.ones(self.num_items, dtype=bool) if mask is None else mask.copy()
        allowed[groups[0]] = False
        if apart_um > 0:
            allowed &= ~near_to(self.obs, self.obs.iloc[groups[0]], apart_um)

        def search_among(number: int, among: NDArray[np.bool_]) -> pd.DataFrame:
            return self.search_like(groups[0], number, where=among, include_query=True)

        return hits_apart(
            search_among, self.obs, k, allowed, apart_um=apart_um, max_distance=max_distance
        )

    @typed
    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        where: Filter | None = None,
        exclude: Filter | Sequence[int] | NDArray[np.integer] | None = None,
        slide: Any = None,
    ) -> pd.DataFrame:
        """The items most like each query.

        Args:
            queries: Embeddings by the same model, ``[Q, D]`` or ``[D]``.
            k: Number of results per query.
            where: Only return items that meet a condition: ``{"slide_id": ["s1", "s2"]}``, a
                condition such as ``"area > 50"``, or a bool mask ``[N]``.
            exclude: Never return these: a condition as in ``where``, rows ``[R]``, or rows of
                each query ``[Q, R]`` (itself, when queries are items).
            slide: Slide the queries are of, for a calibrated index: its name if it is in the
                index (one, or of each query), or else the embeddings of all its cells, ``[n, D]``.

        Returns:
            ``k`` rows per query, nearest first: ``query`` (number), ``rank`` (from 1), ``row``
            and ``id`` (index of ``obs``) of the item, ``distance`` (1 - cosine, or Euclidean),
            and the columns of ``obs``.

        Raises:
            ValueError: If queries have another size or are not finite, fewer than ``k`` items
                are left, a filter names an unknown column, or a calibrated index lacks the
                slide of the queries.
        """
        queries = queries if hasattr(queries, "shape") else np.asarray(queries)
        queries = queries[None] if len(queries.shape) == 1 else queries
        num, _ = check_vectors(queries, self.metric, "queries", self.channels)
        if self.calibration is not None:
            queries = self._calibrated(np.asarray(queries), slide)
        mask, own = allowed_items(self.obs, where, exclude, num)
        return self._find(queries, k, mask, own, said(where, exclude))

    def __len__(self) -> int:
        return self.num_items

    def _find(
        self,
        queries: Any,
        k: int,
        mask: NDArray[np.bool_] | None,
        own: NDArray[np.int64],
        condition: str,
    ) -> pd.DataFrame:
        left, extra = check_choice(self.num_items, mask, own, k, condition), own.shape[1]
        unit = prepare(queries, self.metric)
        value, row = backend.search(self._index, unit, min(k + extra, left), self._effort, mask)
        if extra:
            first = np.arange(len(row))[:, None] * self.num_items  # rows of each query apart
            hidden = np.isin(row + first, own + first)  # [Q, k + R]
            order = np.argsort(hidden, axis=1, kind="stable")[:, :k]
            value, row = np.take_along_axis(value, order, 1), np.take_along_axis(row, order, 1)
        distance = 1 - value if self.metric == "cosine" else np.sqrt(value.clip(min=0))
        return hits_table(self.obs, distance, row)

    def _calibrated(self, queries: NDArray, slide: Any) -> NDArray[np.float32]:
        """Queries as the items of the index are."""
        assert self.calibration is not None  # called only then
        if slide is None:
            raise ValueError(
                "Expected 'slide' with the queries, got None: the index is calibrated by slide. "
                "For items of the index, use search_like"
            )
        names = np.asarray(slide)
        if names.ndim == 2:
            check_vectors(names, "l2", "slide", self.channels)
            return SlideCalibration.fit(names, np.full(len(names), "query")).apply(
                queries, np.full(len(queries), "query")
            )
        if names.ndim == 1 and len(names) != len(queries):
            raise ValueError(
                f"Expected 'slide' of each of {len(queries)} queries or one for all, got "
                f"{len(names)}"
            )
        return self.calibration.apply(queries, np.broadcast_to(names, len(queries)))
