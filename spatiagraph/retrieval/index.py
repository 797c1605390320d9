"""``NicheIndex``: find the niches most like a given one, across slides."""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spatiagraph import keys
from spatiagraph.retrieval import backend
from spatiagraph.retrieval.filters import Filter, filter_mask
from spatiagraph.retrieval.storage import read_folder, write_folder
from spatiagraph.retrieval.vectors import Metric, blocks, check_vectors, prepare

if TYPE_CHECKING:
    from anndata import AnnData

_RESULT = ("query", "rank", "row", "id", "distance")


class NicheIndex:
    """Nearest-neighbour index over embeddings of cells or niches, with their metadata.

    Make one with :meth:`build`, :meth:`from_slides` or :meth:`load`. Vectors are stored whole
    (no quantisation), so an approximate index can always be searched exactly, and is wherever a
    filter leaves it too little choice.

    Attributes:
        obs: Metadata of the items, ``N`` rows.
        kind: ``"flat"`` (exact), ``"ivf"`` (inverted lists) or ``"hnsw"`` (small-world graph).
        metric: ``"cosine"`` or ``"l2"``.
        recall: Share of the true ten nearest that a search returns, measured on 100 items.

    Examples:
        >>> obs = pd.DataFrame({"slide_id": ["a", "b", "b"]}, index=["c1", "c2", "c3"])
        >>> index = NicheIndex.build(np.array([[1.0, 0], [1, 1], [0, 1]]), obs)
        >>> index.search(np.array([1.0, 0.1]), k=2)[["rank", "id", "slide_id"]]
           rank  id slide_id
        0     1  c1        a
        1     2  c2        b
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
    ):
        self._index = index
        self._effort = effort
        self.obs = obs
        self.kind = kind
        self.metric = metric
        self.seed = seed
        self.recall = recall

    @classmethod
    def build(
        cls,
        embeddings: Any,
        obs: pd.DataFrame | None = None,
        *,
        kind: Literal["auto", "flat", "ivf", "hnsw"] = "auto",
        metric: Metric = "cosine",
        seed: int = 0,
        min_recall: float = 0.95,
        deterministic: bool = True,
    ) -> Self:
        """Index embeddings.

        Args:
            embeddings: ``[N, D]``; numpy, a tensor, or an array on disk, read block by block.
            obs: One row of metadata per embedding, to filter by and to return.
            kind: ``"auto"`` is exact up to 100 000 items, inverted lists up to a million, and an
                HNSW graph above.
            metric: ``"cosine"`` compares directions, ``"l2"`` distances.
            seed: Seed of the lists or links of an approximate index.
            min_recall: Effort of approximate searches is raised until they find this share of
                the true ten nearest.
            deterministic: Insert into an HNSW graph on one thread, so that a seed gives the same
                index again; ``False`` is faster.

        Raises:
            ValueError: If embeddings are not finite (names the rows) or do not match ``obs``.
        """
        if kind not in ("auto", "flat", "ivf", "hnsw"):
            raise ValueError(f"Expected 'kind' auto, flat, ivf or hnsw, got {kind!r}")
        if metric not in ("cosine", "l2"):
            raise ValueError(f"Expected 'metric' cosine or l2, got {metric!r}")
        embeddings = embeddings if hasattr(embeddings, "shape") else np.asarray(embeddings)
        num, channels = check_vectors(embeddings, metric, "embeddings")
        if num == 0:
            raise ValueError("Expected at least one embedding, got none")
        obs = _metadata(obs, num)
        kind = backend.choose_kind(num) if kind == "auto" else kind
        index = backend.new_index(kind, channels, metric, num, seed)
        with backend.single_thread(deterministic and kind != "flat"):
            rows = backend.train_rows(index, num, seed)
            if len(rows):
                index.train(prepare(_take(embeddings, rows), metric))
            for block in blocks(embeddings, metric):
                index.add(block)
        effort, recall = backend.tune(index, seed, min_recall)
        if recall < min_recall:
            warnings.warn(
                f"The {kind} index finds {recall:.0%} of the true ten nearest, less than "
                f"min_recall={min_recall:g}; pass kind='flat' for exact results",
                stacklevel=2,
            )
        return cls(index, obs, kind=kind, metric=metric, seed=seed, effort=effort, recall=recall)

    @classmethod
    def from_slides(
        cls,
        slides: "Mapping[str, AnnData] | Sequence[AnnData]",
        key: str,
        **arguments: Any,
    ) -> Self:
        """Index the cells of several slides.

        Args:
            slides: AnnData of each slide, by name; or a list, named by their
                ``obs["slide_id"]``.
            key: Slot of the embedding in ``obsm``.
            **arguments: Passed to :meth:`build`.

        Returns:
            An index whose ``obs`` has all columns of the slides, ``slide_id``, and the position
            ``x_um`` and ``y_um``.

        Raises:
            ValueError: If a slide lacks the embedding, or two slides have one name.
        """
        named = dict(slides) if isinstance(slides, Mapping) else _by_slide_id(slides)
        if not named:
            raise ValueError("Expected at least one slide, got none")
        for name, adata in named.items():
            if key not in adata.obsm:
                raise ValueError(
                    f"Expected obsm[{key!r}] in slide {name!r}, found {sorted(adata.obsm)}"
                )
        sizes = {name: adata.obsm[key].shape for name, adata in named.items()}
        channels = {shape[1] for shape in sizes.values()}
        if len(channels) > 1:
            raise ValueError(f"Expected embeddings of one model, got sizes {sizes}")
        embeddings = np.empty((sum(s[0] for s in sizes.values()), channels.pop()), np.float32)
        start = 0
        for adata in named.values():
            embeddings[start : (start := start + adata.n_obs)] = adata.obsm[key]
        obs = pd.concat([_slide_obs(name, adata) for name, adata in named.items()])
        return cls.build(embeddings, obs, **arguments)

    @property
    def num_items(self) -> int:
        """Number of items, :math:`N`."""
        return int(self._index.ntotal)

    @property
    def channels(self) -> int:
        """Size of an embedding, :math:`D`."""
        return int(self._index.d)

    def vectors(self, rows: Sequence[int] | NDArray[np.integer]) -> NDArray[np.float32]:
        """Embeddings of items, ``[R, D]``; of length one if the metric is cosine."""
        return backend.reconstruct(self._index, self._rows(rows))

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        where: Filter | None = None,
        exclude: Filter | Sequence[int] | NDArray[np.integer] | None = None,
    ) -> pd.DataFrame:
        """The items most like each query.

        Args:
            queries: Embeddings by the same model, ``[Q, D]`` or ``[D]``.
            k: Number of results per query.
            where: Only return items that meet a condition: ``{"slide_id": ["s1", "s2"]}``, a
                pandas query such as ``"area > 50"``, or a bool mask ``[N]``.
            exclude: Never return these: a condition as in ``where``, rows ``[R]``, or rows of
                each query ``[Q, R]`` (itself, when queries are items).

        Returns:
            ``k`` rows per query, nearest first: ``query`` (number), ``rank`` (from 1), ``row``
            and ``id`` (index of ``obs``) of the item, ``distance`` (1 - cosine, or Euclidean),
            and the columns of ``obs``.

        Raises:
            ValueError: If queries have another size or are not finite, fewer than ``k`` items
                are left, or a filter names an unknown column.
        """
        queries = queries if hasattr(queries, "shape") else np.asarray(queries)
        queries = queries[None] if len(queries.shape) == 1 else queries
        num, _ = check_vectors(queries, self.metric, "queries", self.channels)
        if k < 1:
            raise ValueError(f"Expected 'k' of at least 1, got {k}")
        mask, own = self._allowed(where, exclude, num)
        left = self.num_items if mask is None else int(mask.sum())
        extra = own.shape[1]
        if mask is not None and left == 0:
            raise ValueError(f"Expected items that meet {_said(where, exclude)}, found none")
        if k + extra > left and k > left - _most_hidden(own, mask):
            raise ValueError(
                f"Expected 'k' of at most {left - _most_hidden(own, mask)}, the number of items "
                f"to choose from, got {k}"
            )
        unit = prepare(queries, self.metric)
        value, row = backend.search(self._index, unit, min(k + extra, left), self._effort, mask)
        if extra:
            hidden = (row[:, :, None] == own[:, None]).any(2)  # [Q, k + R]
            order = np.argsort(hidden, axis=1, kind="stable")[:, :k]
            value, row = np.take_along_axis(value, order, 1), np.take_along_axis(row, order, 1)
        return self._table(value, row)

    def append(self, embeddings: Any, obs: pd.DataFrame | None = None) -> None:
        """Add items in place, by the same model. Recall is measured again.

        Raises:
            ValueError: As :meth:`build`; nothing is added then.
        """
        embeddings = embeddings if hasattr(embeddings, "shape") else np.asarray(embeddings)
        num, _ = check_vectors(embeddings, self.metric, "embeddings", self.channels)
        if obs is None and len(self.obs.columns):
            raise ValueError(
                f"Expected 'obs' with the columns {list(map(str, self.obs.columns))}, got none"
            )
        joined = pd.concat([self.obs, _metadata(obs, num, self.num_items)])
        with backend.single_thread(self.kind == "hnsw"):
            for block in blocks(embeddings, self.metric):
                self._index.add(block)
        self.obs = joined
        self._effort, self.recall = backend.tune(self._index, self.seed, self.recall)

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write ``index.faiss``, ``obs.parquet`` and ``config.json`` into a folder.

        Raises:
            FileExistsError: If the folder holds anything but an index.
        """
        path = Path(directory)
        config = {
            "kind": self.kind,
            "metric": self.metric,
            "seed": self.seed,
            "effort": self._effort,
            "recall": self.recall,
            "num_items": self.num_items,
            "channels": self.channels,
        }
        write_folder(path, self._index, self.obs, config)
        return path

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Self:
        """Read an index that :meth:`save` wrote.

        Raises:
            FileNotFoundError: If there is no such folder.
            ValueError: If it holds something else or is damaged.
        """
        index, obs, config = read_folder(Path(directory))
        names = ("kind", "metric", "seed", "effort", "recall")
        return cls(index, obs, **{name: config[name] for name in names})

    def __len__(self) -> int:
        return self.num_items

    def __repr__(self) -> str:
        return (
            f"NicheIndex({self.num_items} items x {self.channels}, {self.kind}, {self.metric}, "
            f"recall@10 = {self.recall:.3f})"
        )

    def _allowed(
        self, where: Filter | None, exclude: Any, num_queries: int
    ) -> tuple[NDArray[np.bool_] | None, NDArray[np.int64]]:
        """Items allowed for all queries ``[N]`` and rows hidden from each query ``[Q, R]``."""
        mask = None if where is None else filter_mask(self.obs, where)
        none = np.empty((num_queries, 0), dtype=np.int64)
        if exclude is None:
            return mask, none
        if not isinstance(exclude, str | Mapping):
            exclude = np.asarray(exclude)
            if exclude.dtype != bool:
                rows = self._rows(exclude)
                if rows.ndim == 2 and len(rows) != num_queries:
                    raise ValueError(
                        f"Expected 'exclude' of shape [{num_queries}, R] (one row per query), got "
                        f"{rows.shape}"
                    )
                if rows.ndim == 2:
                    return mask, rows
                exclude = np.zeros(self.num_items, dtype=bool)
                exclude[rows] = True
        keep = ~filter_mask(self.obs, exclude)
        return keep if mask is None else mask & keep, none

    def _rows(self, rows: Any) -> NDArray[np.int64]:
        rows = np.asarray(rows)
        rows = rows.astype(np.int64) if rows.size == 0 else rows
        if not np.issubdtype(rows.dtype, np.integer) or rows.ndim > 2:
            raise ValueError(f"Expected rows as integers [R], got {rows.dtype} {rows.shape}")
        wrong = rows[(rows < 0) | (rows >= self.num_items)]
        if len(wrong):
            raise ValueError(f"Expected rows in [0, {self.num_items}), got {wrong[:5].tolist()}")
        return rows.astype(np.int64)

    def _table(self, value: NDArray, row: NDArray) -> pd.DataFrame:
        num, k = row.shape
        distance = 1 - value if self.metric == "cosine" else np.sqrt(value.clip(min=0))
        found = self.obs.iloc[row.ravel()]
        table = pd.DataFrame(
            {
                "query": np.repeat(np.arange(num), k),
                "rank": np.tile(np.arange(1, k + 1), num),
                "row": row.ravel(),
                "id": found.index.to_numpy(),
                "distance": distance.ravel().clip(min=0),
            }
        )
        clash = {c: f"{c}_obs" for c in found.columns if c in _RESULT}
        return pd.concat([table, found.rename(columns=clash).reset_index(drop=True)], axis=1)


def _metadata(obs: pd.DataFrame | None, num: int, first: int = 0) -> pd.DataFrame:
    if obs is None:
        return pd.DataFrame(index=pd.RangeIndex(first, first + num))
    if len(obs) != num:
        raise ValueError(f"Expected one row of 'obs' per embedding, got {len(obs)} for {num}")
    return obs.copy(deep=False)


def _take(embeddings: Any, rows: NDArray[np.int64]) -> NDArray:
    """Rows ``[R, D]``; those of an array on disk in one sorted read."""
    return np.asarray(embeddings if len(rows) == embeddings.shape[0] else embeddings[rows])


def _by_slide_id(slides: "Sequence[AnnData]") -> "dict[str, AnnData]":
    named: dict[str, AnnData] = {}
    for number, adata in enumerate(slides):
        ids = list(adata.obs[keys.SLIDE_ID].unique()) if keys.SLIDE_ID in adata.obs else []
        if len(ids) != 1:
            raise ValueError(
                f"Expected one name in obs[{keys.SLIDE_ID!r}] of slide {number}, got {len(ids)}: "
                "pass a dictionary name → slide"
            )
        if str(ids[0]) in named:
            raise ValueError(f"Expected slides with different names, got {ids[0]!r} twice")
        named[str(ids[0])] = adata
    return named


def _slide_obs(name: str, adata: "AnnData") -> pd.DataFrame:
    obs = adata.obs.copy()
    obs[keys.SLIDE_ID] = pd.Categorical([name] * adata.n_obs)
    if keys.SPATIAL in adata.obsm:
        pos = np.asarray(adata.obsm[keys.SPATIAL])
        obs["x_um"], obs["y_um"] = pos[:, 0], pos[:, 1]
    return obs


def _most_hidden(own: NDArray[np.int64], mask: NDArray[np.bool_] | None) -> int:
    """Most items that any query loses to its own exclusions."""
    if own.shape[1] == 0:
        return 0
    lost = [{int(r) for r in rows if mask is None or mask[r]} for rows in own]
    return max(len(rows) for rows in lost)


def _said(where: Any, exclude: Any) -> str:
    parts = {"where": where, "exclude": exclude}
    return " and ".join(
        f"{name}={value if isinstance(value, str | dict) else 'the mask'!r}"
        for name, value in parts.items()
        if value is not None
    )
