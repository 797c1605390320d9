"""Mini-batches of pairs of cells: an image, what is known of its cell, and the image to reach."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from spatiagraph.data.checks import name_rows
from spatiagraph.data.condition import Condition
from spatiagraph.data.crops import CropSource, image_of
from spatiagraph.data.loader.sampling import EpochSampler, Numbers
from spatiagraph.data.recipe.crops import Crop
from spatiagraph.data.slide import Slide, check_unique_ids

Known = Callable[[Slide, NDArray[np.int64]], Condition]
"""Look-up of the condition of some cells of a slide, ``[B]``."""


class PairBatch(NamedTuple):
    """Mini-batch of pairs of cells.

    Attributes:
        image: Crops of the control cells in [0, 1], ``[B, C, S, S]``.
        target_image: Crops of their partners, ``[B, C, S, S]``.
        confidence: Of each pair, ``[B]``.
        condition: Of the control cells, with the number of the transition.
    """

    image: Tensor
    target_image: Tensor
    confidence: Tensor
    condition: Condition = Condition()


class PairLoader(DataLoader[PairBatch]):
    """Loader of pairs of cells, in a new order in every epoch.

    A batch is a :class:`PairBatch`.

    Args:
        slides: Cohort with images.
        pairs: Result of :func:`~spatiagraph.pairing.pair_states` or of :func:`pairs_of_cells`.
        crop: Windows around the cells.
        transitions: Tags, in order; none where pairs have no transition.
        known: Looks up the condition of control cells, but for the transition.
        batch_size: Pairs of a batch, at most.
        seed: Seed of the order.
        num_workers: Worker processes.
        progress: Show a progress bar while crops are read.

    Raises:
        ValueError: There is no pair, a pair is of another slide or transition, a slide has no
            image or one smaller than a crop, or a cell lies outside of it.
    """

    def __init__(
        self,
        slides: Sequence[Slide],
        pairs: pd.DataFrame,
        *,
        crop: Crop,
        transitions: Sequence[str] = (),
        known: Known | None = None,
        batch_size: int = 64,
        seed: int = 0,
        num_workers: int = 0,
        progress: bool = False,
    ):
        check_unique_ids(slides)
        self.slides = [slide for slide in slides if (pairs["slide"] == slide.slide_id).any()]
        self.sources = [crop.source(slide, slide.pos) for slide in self.slides]
        codes = pd.Index([slide.slide_id for slide in self.slides]).get_indexer(
            pd.Index(pairs["slide"])
        )
        if not len(pairs) or (codes < 0).any():
            unknown = sorted(set(pairs["slide"][codes < 0]))
            raise ValueError(
                f"Expected pairs of cells of the given slides, got {unknown or 'none'}"
            )
        self.slide = codes
        self.control = pairs["control_row"].to_numpy(np.int64)
        self.target = pairs["target_row"].to_numpy(np.int64)
        self.confidence = torch.from_numpy(pairs["confidence"].to_numpy(np.float32).copy())
        self.condition = self._look_up(known)._replace(
            transition=_numbers(pairs, transitions) if transitions else None
        )
        for i, source in enumerate(self.sources):
            for rows in (self.control, self.target):  # refuse cells outside of the image at once
                self._check_inside(i, source, rows[codes == i])
        super().__init__(
            Numbers(len(pairs)),  # collate makes batches of them
            batch_size=batch_size,
            sampler=EpochSampler(len(pairs), seed),
            collate_fn=self.batch,
            num_workers=num_workers,
            generator=torch.Generator().manual_seed(seed),  # else it draws from torch's own
        )

    def batch(self, numbers: Sequence[int]) -> PairBatch:
        """The batch of some pairs.

        Args:
            numbers: Rows of the table of pairs.
        """
        chosen = np.asarray(numbers)
        slide = self.slide[chosen]
        sides: dict[str, Tensor] = {}
        for i in np.unique(slide):
            here = np.flatnonzero(slide == i)
            for key, rows in (("image", self.control), ("target_image", self.target)):
                crops, _ = self.sources[i].read(rows[chosen[here]])
                if key not in sides:
                    sides[key] = crops.new_empty(len(chosen), *crops.shape[1:])
                sides[key][here] = crops
        at = torch.from_numpy(chosen)
        return PairBatch(confidence=self.confidence[at], condition=self.condition.take(at), **sides)

    def _look_up(self, known: Known | None) -> Condition:
        """Condition of the control of each pair."""
        result: dict[str, Tensor] = {}
        if known is None:
            return Condition()
        for i, slide in enumerate(self.slides):
            here = np.flatnonzero(self.slide == i)
            for key, value in known(slide, self.control[here])._asdict().items():
                if value is None:
                    continue
                if key not in result:
                    result[key] = value.new_empty(len(self.slide), *value.shape[1:])
                result[key][torch.from_numpy(here)] = value
        return Condition(**result)

    def _check_inside(self, slide: int, source: CropSource, rows: NDArray[np.int64]) -> None:
        outside = rows[~source.image.covers(source.centres[rows])] if len(rows) else rows
        if len(outside):
            raise _outside(self.slides[slide], outside)


def inside_image(slide: Slide, crop: Crop) -> NDArray[np.bool_]:
    """Cells whose whole window lies on the image, ``[N]``: the rim of an image looks like a cell.

    Args:
        slide: The slide.
        crop: Windows around the cells.

    Raises:
        ValueError: There is no image, or it is smaller than a window.
    """
    window_um = crop.windows_um(slide)
    x0, y0, x1, y1 = image_of(slide, window_um).extent_um
    half = np.broadcast_to(window_um, slide.num_cells)[:, None] / 2
    low, high = slide.pos - half, slide.pos + half
    inside = (low >= (x0, y0)) & (high <= (x1, y1))  # [N, 2]
    return inside[:, 0] & inside[:, 1]


def read_crops(
    slide: Slide,
    rows: NDArray[np.int64],
    crop: Crop,
    progress: bool = False,
) -> Tensor:
    """Crops around some cells, ``[B, C, S, S]`` in [0, 1].

    Args:
        slide: The slide.
        rows: Rows of the cells, ``[B]``.
        crop: Windows around the cells, of :math:`S` pixels.
        progress: Show a progress bar.

    Raises:
        ValueError: There is no image, it is smaller than a crop, or a cell lies outside of it.
    """
    crops, inside = crop.source(slide, slide.pos).read(rows, progress=progress)
    if not bool(inside.all()):
        raise _outside(slide, rows[~inside.numpy()])
    return crops


def _outside(slide: Slide, rows: NDArray[np.int64]) -> ValueError:
    names = name_rows(slide.adata.obs_names, rows)
    return ValueError(f"Expected cells on the image of slide {slide.slide_id!r}, not {names}")


def pairs_of_cells(
    slides: Sequence[Slide], cells: Mapping[str, NDArray[np.int64]] | None = None
) -> pd.DataFrame:
    """Pairs of each cell with itself: for a generator that makes images of nothing but embeddings.

    Args:
        slides: Cohort.
        cells: Slide id → rows; all cells when not given.

    Returns:
        A table as that of :func:`~spatiagraph.pairing.pair_states`, without transitions.
    """
    tables = []
    for slide in slides:
        rows = np.arange(slide.num_cells) if cells is None else cells[slide.slide_id]
        tables.append(
            pd.DataFrame(
                {
                    "slide": slide.slide_id,
                    "control_row": rows,
                    "target_row": rows,
                    "confidence": 1.0,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def _numbers(pairs: pd.DataFrame, transitions: Sequence[str]) -> Tensor:
    if "transition" not in pairs:
        raise ValueError(f"Expected pairs of the transitions {list(transitions)}, got none named")
    codes = pd.Index(list(transitions)).get_indexer(pd.Index(pairs["transition"]))
    if (codes < 0).any():
        unknown = sorted(set(pairs["transition"][codes < 0]))
        raise ValueError(f"Expected pairs of the transitions {list(transitions)}, got {unknown}")
    return torch.from_numpy(codes.astype(np.int64))
