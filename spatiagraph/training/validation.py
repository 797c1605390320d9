"""Validation sets of a run: slides of their own, or blocks of the training slides."""

import copy
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spatiagraph.data.cohort import Cohort, CohortPart
from spatiagraph.data.content import content_hash
from spatiagraph.data.convert import TissueData
from spatiagraph.data.loader import Prepared, whole_slides
from spatiagraph.data.recipe import CELL
from spatiagraph.data.slide import Slide
from spatiagraph.data.splits import away_from, check_no_leak, spatial_blocks
from spatiagraph.graph.edges import plain_edges
from spatiagraph.models.base import SlideModel
from spatiagraph.nn.weights import weights_hash
from spatiagraph.training.cohorts import part_for

logger = logging.getLogger(__name__)

GRID = (5, 4)
"""Blocks of a slide along x and y, some of which are held out."""


@dataclass(frozen=True)
class Validation:
    """Cells that a model is scored on after every epoch and never trained on.

    Attributes:
        slides: Slides of their own.
        share: Share of the training slides, in blocks of tissue. Cells within reach of a block
            (the hops of the model over the cell graph, the window of an image) are not trained on
            either; levels above the cells still group both, so slides of their own are stricter.
        cohort: Slides of their own, of a cohort.

    Raises:
        ValueError: The share is out of range, or no slide is given.
    """

    slides: tuple[Slide, ...] = ()
    share: float = 0.0
    cohort: CohortPart | None = None

    def __post_init__(self) -> None:
        if not self.slides and self.cohort is None and not 0 < self.share < 1:
            raise ValueError(
                "Expected 'validation' as slides, or as a share of the tissue between 0 and 1, got "
                f"{self.share}"
            )

    @property
    def record(self) -> Any:
        """The share, or the content of the slides, as plain values."""
        if self.cohort is not None:
            return {entry.slide_id: entry.content_hash for entry in self.cohort.entries}
        return {s.slide_id: content_hash(s) for s in self.slides} or self.share

    @property
    def slide_ids(self) -> list[str]:
        """Names of the slides of their own."""
        own = [slide.slide_id for slide in self.slides]
        return own if self.cohort is None else self.cohort.slide_ids

    def split(
        self,
        model: SlideModel,
        slides: Sequence[Slide] | CohortPart,
        prepared: Prepared,
        seed: int,
        device: torch.device,
    ) -> tuple[Prepared, Prepared]:
        """Slides to train on and to validate on; their ``core`` marks the cells that count.

        Args:
            model: Knows its reach.
            slides: Training slides.
            prepared: The same, as it prepares them; those of a cohort are its tiles.
            seed: Seed of the choice of blocks.
            device: Where frozen parts of the model run.

        Raises:
            ValueError: No cell is left to train on.
        """
        if self.slides:
            held_out = [model.prepare(s, device=device, learn=True) for s in self.slides]
            return prepared, held_out
        if self.cohort is not None:
            return prepared, part_for(model, self.cohort)
        if isinstance(slides, CohortPart):
            return self._parts(model, slides, seed)
        sides = []
        for slide, data in zip(slides, whole_slides(prepared, "validation"), strict=True):
            margin_um = 0.0 if slide.image is None else _window_um(model, slide)
            masks = _blocks(data, self.share, model.num_hops, margin_um, seed)
            sides.append([_with_core(data, core) for core in masks])
        return [train for train, _ in sides], [held_out for _, held_out in sides]

    def _parts(
        self, model: SlideModel, part: CohortPart, seed: int
    ) -> tuple[CohortPart, CohortPart]:
        """The same of a cohort, of which one slide at a time is in memory."""
        sides: list[tuple[Tensor, Tensor]] = []
        for at, entry in enumerate(part.entries):
            slide = part.read(at)
            margin_um = _window_um(model, slide) if entry.has_image else 0.0
            data = model.recipe(slide)
            sides.append(_blocks(data, self.share, model.num_hops, margin_um, seed))
        return part.only([train for train, _ in sides]), part.only([held for _, held in sides])


def as_validation(
    validation: Slide | Sequence[Slide] | CohortPart | float | None, ids: Sequence[str]
) -> Validation | None:
    """The validation set that was given.

    Args:
        validation: Slides, some of a cohort, or a share of the tissue in blocks.
        ids: Names of the training slides.

    Raises:
        ValueError: It is neither, or a slide is in both.
    """
    if isinstance(validation, str):
        raise ValueError(f"Expected 'validation' as slides or a share, got {validation!r}")
    if validation is None:
        return None
    if isinstance(validation, int | float):
        return Validation(share=validation)
    if isinstance(validation, Cohort):
        validation = validation.part()
    stored = validation if isinstance(validation, CohortPart) else None
    own: tuple[Slide, ...] = ()
    if not isinstance(validation, CohortPart):
        own = (validation,) if isinstance(validation, Slide) else tuple(validation)
    names = [slide.slide_id for slide in own] if stored is None else stored.slide_ids
    every = [*names, *ids]
    shared = sorted({name for name in names if every.count(name) > 1})
    if not names:
        raise ValueError("Expected slides to validate on, got none: leave 'validation' out")
    if shared:
        raise ValueError(
            f"Expected slides to validate on that differ from each other and from those to train "
            f"on, got {shared} again: give a share such as validation=0.2 for blocks of a slide"
        )
    return Validation(own, cohort=stored)


def check_donors(held_out: Validation, slides: Sequence[Slide] | CohortPart) -> None:
    """Log if slides to validate on are of donors that are trained on.

    Args:
        held_out: The validation set.
        slides: Training slides.
    """

    def donors(side: Sequence[Slide] | CohortPart) -> set[str]:
        every = side.entries if isinstance(side, CohortPart) else side
        return {str(one.donor) for one in every if one.donor is not None}

    given = held_out.slides if held_out.cohort is None else held_out.cohort
    if shared := sorted(donors(given) & donors(slides)):
        logger.warning(
            "Slides to validate on are of donors that are trained on, %s: the score says how other "
            "sections of theirs are done, not those of others",
            shared,
        )


def start_without(
    held_out: Validation,
    model: SlideModel,
    slides: Sequence[Slide] | CohortPart,
    prepared: Prepared,
) -> None:
    """Fit the start of a model again where it has seen cells that are held out.

    A model that starts from other slides is left as it is, as is one whose weights have changed
    since, with a warning.

    Args:
        held_out: The validation set.
        model: The model, changed in place.
        slides: Training slides.
        prepared: The same; their ``core`` marks the cells to train on.
    """
    start = model.start
    if start is None:
        return
    seen = {*start.slide_ids}
    given: Sequence[Slide] = StoredSlides(slides) if isinstance(slides, CohortPart) else slides
    rows: Sequence[Tensor] | None = None
    if held_out.share:
        names = (
            slides.slide_ids
            if isinstance(slides, CohortPart)
            else [slide.slide_id for slide in slides]
        )
        if not seen & {*names}:
            return
        rows = (
            prepared.cores
            if isinstance(prepared, CohortPart)
            else [data.core for data in whole_slides(prepared, "validation")]
        )
    elif not seen & {*held_out.slide_ids}:
        return
    if start.weights != weights_hash(model):
        warnings.warn(
            "The model has seen the cells that are held out: it was made from them, and its "
            "weights have changed since, so that its start is not fitted again without them",
            stacklevel=2,
        )
        return
    model.initialize(given, rows=rows, **start.options)


class StoredSlides(Sequence[Slide]):
    """Slides of a cohort, each read when it is looked at, and not kept."""

    def __init__(self, part: CohortPart):
        self.part = part

    def __len__(self) -> int:
        return len(self.part.entries)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        return self.part.read(at % len(self))


def _blocks(
    data: TissueData, share: float, num_hops: int, margin_um: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Cells of a slide that are to be trained on, and those that are held out, ``[N]`` bool."""
    held_out = _held_out(data, share, seed)
    kept = _kept(data, held_out, num_hops, margin_um)
    pos = data.pos.numpy()
    if not bool(kept.any()):
        raise ValueError(
            f"Expected cells to train on beyond the reach of the {_num_blocks(share)} blocks of "
            f"tissue to validate on ({num_hops} hops, {margin_um:g} µm), got none of {len(pos)}: "
            "give a smaller share, larger slides, or slides of their own"
        )
    check_no_leak(kept.numpy(), held_out.numpy(), pos=pos, margin_um=margin_um)
    return kept, held_out


def _num_blocks(share: float) -> int:
    """Blocks that are held out, of those there are."""
    num_blocks = GRID[0] * GRID[1]
    return min(max(1, round(share * num_blocks)), num_blocks - 1)


def _held_out(data: TissueData, share: float, seed: int) -> Tensor:
    """Cells of the blocks that are held out, ``[N]``."""
    block = spatial_blocks(data.pos.numpy(), num_folds=GRID[0] * GRID[1], seed=seed, grid=GRID)
    return torch.from_numpy(block < _num_blocks(share))


def _kept(data: TissueData, held_out: Tensor, num_hops: int, margin_um: float) -> Tensor:
    """Cells beyond the reach of those that are held out, ``[N]``."""
    kept = ~_reached(held_out, data.edge_index, num_hops)
    return kept & torch.from_numpy(away_from(data.pos.numpy(), held_out.numpy(), margin_um))


def _with_core(data: TissueData, core: Tensor) -> TissueData:
    side = copy.copy(data)
    side.core = core
    return side


def _window_um(model: SlideModel, slide: Slide) -> float:
    """Diagonal of the largest window around a cell: windows of nearer cells may share pixels."""
    windows = [crop.windows_um(slide) for crop in model.recipe.crops if crop.of == CELL]
    return max((float(np.max(window)) for window in windows), default=0.0) * 2**0.5


def _reached(cells: Tensor, edge_index: Tensor, num_hops: int) -> Tensor:
    """Cells that see some cells, or are seen by them, over so many edges; these included."""
    source, target = plain_edges(edge_index)
    reached = cells.clone()
    for _ in range(num_hops):
        seen = reached.clone()
        seen[target[reached[source]]] = True
        seen[source[reached[target]]] = True
        reached = seen
    return reached
