"""``NicheIndex``: find the niches most like a given one, across slides."""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import spatiagraph
from spatiagraph._typed import typed
from spatiagraph.data.cohort import Cohort
from spatiagraph.retrieval import backend
from spatiagraph.retrieval.calibration import CalibratedBlocks, SlideCalibration, slide_of
from spatiagraph.retrieval.searching import ItemSearch
from spatiagraph.retrieval.slides import concatenate_slides
from spatiagraph.retrieval.storage import IndexConfig, Stored, read_folder, write_folder
from spatiagraph.retrieval.stored import concatenate_cohort
from spatiagraph.retrieval.vectors import Metric, blocks, check_vectors, prepare

if TYPE_CHECKING:
    from anndata import AnnData

_SAVED = ("kind", "metric", "seed", "min_recall", "recall", "model", "key")


class NicheIndex(ItemSearch):
    """Nearest-neighbour index over embeddings of cells or niches, with their metadata.

    Make one with :meth:`build`, :meth:`from_slides` or :meth:`load`. Vectors are stored whole
    (no quantisation), so an approximate index can always be searched exactly, and is wherever a
    filter leaves it too little choice.

    Ask it with embeddings (:meth:`search`), or with some of its own items (:meth:`select`, then
    :meth:`search_like`): a cell, the cells of a drawn region, those of a niche.

    Attributes:
        obs: Metadata of the items, ``N`` rows.
        kind: ``"flat"`` (exact), ``"ivf"`` (inverted lists) or ``"hnsw"`` (small-world graph).
        metric: ``"cosine"`` or ``"l2"``.
        recall: Share of the true ten nearest that a search returns, measured on 100 items; for
            queries that are no items it is a little lower.
        calibration: What is taken away from the embeddings of each slide, or ``None``.
        model: Hash of the weights that made the embeddings, where known.
        key: Slot of ``obsm`` they came from, where known.
        made_of: Modalities that the embeddings of slides were made of, where known; not saved.

    Examples:
        >>> obs = pd.DataFrame({"slide_id": ["a", "b", "b"]}, index=["c1", "c2", "c3"])
        >>> index = NicheIndex.build(np.array([[1.0, 0], [1, 1], [0, 1]]), obs)
        >>> index.search(np.array([1.0, 0.1]), k=2)[["rank", "id", "slide_id"]]
           rank  id slide_id
        0     1  c1        a
        1     2  c2        b
        >>> index.search_like(index.select(cells="c3"), k=1)["id"].item()
        'c2'
    """

    made_of: str | None = None

    @classmethod
    @typed
    def build(
        cls,
        embeddings: Any,
        obs: pd.DataFrame | None = None,
        *,
        kind: Literal["auto", "flat", "ivf", "hnsw"] = "auto",
        metric: Metric = "cosine",
        calibrate: Literal["slide"] | None = None,
        seed: int = 0,
        min_recall: float = 0.95,
        deterministic: bool = True,
        model: str | None = None,
        key: str | None = None,
    ) -> Self:
        """Index embeddings.

        Args:
            embeddings: ``[N, D]``; numpy, a tensor, or an array on disk, read block by block.
            obs: One row of metadata per embedding, to filter by and to return.
            kind: ``"auto"`` is exact up to 100 000 items, inverted lists up to a million, and an
                HNSW graph above.
            metric: ``"cosine"`` compares directions, ``"l2"`` distances.
            calibrate: ``"slide"`` centres the embeddings of each slide (column ``slide_id``), see
                :class:`~spatiagraph.retrieval.calibration.SlideCalibration`: for slides that
                differ in how they were made and not in what they are made of.
            seed: Seed of the lists or links of an approximate index.
            min_recall: Effort of approximate searches is raised until they find this share of
                the true ten nearest.
            deterministic: Insert into an HNSW graph on one thread, so that a seed gives the same
                index again; ``False`` is faster.
            model: Hash of the weights that made the embeddings; others are refused later.
            key: Slot of ``obsm`` they came from.

        Raises:
            ValueError: If embeddings are not finite (names the rows), do not match ``obs``, or
                ``obs`` does not say of which slide they are.
        """
        if kind not in ("auto", "flat", "ivf", "hnsw"):
            raise ValueError(f"Expected 'kind' auto, flat, ivf or hnsw, got {kind!r}")
        if metric not in ("cosine", "l2"):
            raise ValueError(f"Expected 'metric' cosine or l2, got {metric!r}")
        if calibrate not in ("slide", None):
            raise ValueError(f"Expected 'calibrate' slide or None, got {calibrate!r}")
        if not 0 <= min_recall <= 1:
            raise ValueError(f"Expected 'min_recall' between 0 and 1, got {min_recall}")
        embeddings = embeddings if hasattr(embeddings, "shape") else np.asarray(embeddings)
        num, channels = check_vectors(embeddings, metric, "embeddings")
        if num == 0:
            raise ValueError("Expected at least one embedding, got none")
        obs = _metadata(obs, num)
        calibration = None
        if calibrate is not None:
            embeddings, calibration = _calibrate(embeddings, obs, metric)
        kind = backend.choose_kind(num) if kind == "auto" else kind
        index = backend.new_index(kind, channels, metric, num, seed)
        with backend.single_thread(deterministic and kind != "flat"):
            rows = backend.train_rows(index, num, seed)
            if len(rows):
                index.train(prepare(_take(embeddings, rows), metric))
            for block in blocks(embeddings, metric):
                index.add(block)
        return cls.measured(
            index,
            obs,
            kind=kind,
            metric=metric,
            seed=seed,
            min_recall=min_recall,
            model=model,
            key=key,
            calibration=calibration,
        )

    @classmethod
    def measured(cls, index: Any, obs: pd.DataFrame, **given: Any) -> Self:
        """An index of a FAISS index that holds its items, its recall measured.

        Args:
            index: The FAISS index.
            obs: One row of metadata per item.
            **given: The attributes of the class by name, and ``seed`` and ``min_recall``.
        """
        result = cls(index, obs, effort=0, recall=0.0, **given)
        result._tune()
        return result

    @classmethod
    def from_slides(
        cls,
        slides: "Mapping[str, AnnData] | Sequence[AnnData] | Cohort",
        key: str,
        **arguments: Any,
    ) -> Self:
        """Index the cells of several slides; those without an embedding (all NaN) are left out.

        Args:
            slides: AnnData of each slide, by name; or a list, named by their
                ``obs["slide_id"]``. Or a cohort, whose embeddings are read block by block, its
                cells in the order of the store; inverted lists above 100 000 items.
            key: Slot of the embedding in ``obsm``.
            **arguments: Passed to :meth:`build`.

        Returns:
            An index whose ``obs`` has all columns of the slides, ``slide_id``, and the position
            ``x_um`` and ``y_um``.

        Raises:
            ValueError: If a slide lacks the embedding, two slides have one name, or they were
                embedded with different models, or from different modalities by one that gives each
                a vector of its own.
        """
        if isinstance(slides, Cohort):
            table = concatenate_cohort(slides, key)
            if len(table.obs) > backend.FLAT_UP_TO:  # links between all items are memory
                arguments.setdefault("kind", "ivf")
        else:
            table = concatenate_slides(slides, key)
        index = cls.build(table.embeddings, table.obs, model=table.model, key=key, **arguments)
        index.made_of = table.made_of
        return index

    def append(
        self,
        embeddings: Any,
        obs: pd.DataFrame | None = None,
        *,
        model: str | None = None,
        retrain: bool = False,
    ) -> None:
        """Add items in place, by the same model. Recall is measured again.

        Args:
            embeddings: ``[N, D]``.
            obs: Their metadata; columns that only the index or only they have are empty for the
                others.
            model: Hash of the weights that made them, where known.
            retrain: Lay out inverted lists anew for all items: slower, and better if the new
                ones differ much from the old. Other kinds of index have nothing to train.

        Raises:
            ValueError: As :meth:`build`, or if the embeddings are of another model; nothing is
                added then.
        """
        if backend.file_of_lists(self._index) is not None:
            raise ValueError(
                "Expected an index in memory to add items to, the lists of this one are on the "
                "disk: build it again"
            )
        embeddings = embeddings if hasattr(embeddings, "shape") else np.asarray(embeddings)
        num, _ = check_vectors(embeddings, self.metric, "embeddings", self.channels)
        if self.model is not None and model is not None and model != self.model:
            raise ValueError(
                f"Expected embeddings of the model {self.model} as in the index, got some of "
                f"{model}: embed with the model the index was built from"
            )
        if obs is None and len(self.obs.columns):
            raise ValueError(
                f"Expected 'obs' with the columns {list(map(str, self.obs.columns))}, got none"
            )
        added = _metadata(obs, num, self.num_items)
        calibration = self.calibration
        if calibration is not None:
            embeddings, new = _calibrate(embeddings, added, self.metric)
            calibration = calibration.merged(new)
        table = pd.concat([self.obs, added])
        with backend.single_thread(self.kind == "hnsw"):
            for block in blocks(embeddings, self.metric):
                self._index.add(block)
        if retrain and self.kind == "ivf":
            self._index = backend.retrained(self._index, self.metric, self.seed)
        self.obs, self.calibration = table, calibration
        self._tune()

    def append_slides(
        self, slides: "Mapping[str, AnnData] | Sequence[AnnData]", *, retrain: bool = False
    ) -> None:
        """Add the cells of further slides, from the slot the index was built from.

        Args:
            slides: As in :meth:`from_slides`.
            retrain: As in :meth:`append`.

        Raises:
            ValueError: As :meth:`from_slides` and :meth:`append`, or if a slide is in the index
                already; nothing is added then.
        """
        if self.key is None:
            raise ValueError("Expected an index built from slides, got one without a slot of obsm")
        table = concatenate_slides(slides, self.key)
        new = slide_of(table.obs)
        if again := sorted(set(new) & set(slide_of(self.obs))):
            raise ValueError(f"Expected slides that are not in the index, got {', '.join(again)}")
        if None not in (self.made_of, table.made_of) and self.made_of != table.made_of:
            raise ValueError(
                f"Expected {self.key!r} made of {self.made_of} as in the index, got slides of "
                f"which it was made of {table.made_of}. Make another index of them"
            )
        self.append(table.embeddings, table.obs, model=table.model, retrain=retrain)

    @typed
    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write ``index.faiss``, ``obs.parquet`` and ``config.json`` into a folder.

        A calibrated index has a ``calibration.npz`` too.

        Raises:
            FileExistsError: If the folder holds anything but an index.
        """
        path = Path(directory)
        config = IndexConfig(
            spatiagraph=spatiagraph.__version__,
            **{name: getattr(self, name) for name in _SAVED},
            num_items=self.num_items,
            channels=self.channels,
            effort=self._effort,
            calibrated=self.calibration is not None,
        )
        write_folder(path, Stored(self._index, self.obs, config, self.calibration))
        return path

    @classmethod
    @typed
    def load(cls, directory: str | os.PathLike[str]) -> Self:
        """Read an index that :meth:`save` wrote.

        Raises:
            FileNotFoundError: If there is no such folder.
            ValueError: If it holds something else, any part is not as it was written, or it is of
                another version.
        """
        index, obs, config, calibration = read_folder(Path(directory))
        named = {name: getattr(config, name) for name in (*_SAVED, "effort")}
        return cls(index, obs, calibration=calibration, **named)

    def __repr__(self) -> str:
        by_slide = ", calibrated by slide" if self.calibration is not None else ""
        return (
            f"NicheIndex({self.num_items} items x {self.channels}, {self.kind}, {self.metric}, "
            f"recall@10 = {self.recall:.3f}{by_slide})"
        )

    def _tune(self) -> None:
        self._effort, self.recall = backend.tune(self._index, self.seed, self.min_recall)
        if self.recall < self.min_recall:
            warnings.warn(
                f"The {self.kind} index finds {self.recall:.0%} of the true ten nearest, less than "
                f"min_recall={self.min_recall:g}; pass kind='flat' for exact results",
                stacklevel=3,
            )


def _calibrate(
    embeddings: Any, obs: pd.DataFrame, metric: Metric
) -> tuple[CalibratedBlocks, SlideCalibration]:
    slide = slide_of(obs)
    calibration = SlideCalibration.fit(embeddings, slide)
    calibrated = CalibratedBlocks(embeddings, slide, calibration)
    check_vectors(calibrated, metric, "calibrated embeddings")
    return calibrated, calibration


def _metadata(obs: pd.DataFrame | None, num: int, first: int = 0) -> pd.DataFrame:
    if obs is None:
        return pd.DataFrame(index=pd.RangeIndex(first, first + num))
    if len(obs) != num:
        raise ValueError(f"Expected one row of 'obs' per embedding, got {len(obs)} for {num}")
    return obs.copy(deep=False)


def _take(embeddings: Any, rows: NDArray[np.int64]) -> NDArray:
    """Rows ``[R, D]``; those of an array on disk in one sorted read."""
    every = len(rows) == embeddings.shape[0]
    return np.asarray(embeddings[:] if every else embeddings[rows])
