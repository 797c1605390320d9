"""Level rules: how cells, or the groups of the level below, are grouped."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from spatiagraph.data.recipe.rule import (
    MOST_NEIGHBORS,
    Members,
    Rule,
    at_least,
    obs_column,
    positive,
)
from spatiagraph.graph.hierarchy import grid_niches, kd_parts, label_niches, neighborhood_niches


class LevelRule(Rule):
    """Rule that groups members; called as ``rule(members)``.

    The result is the group of each member, ``[n]`` with -1 for none, or members → groups
    ``[2, P]`` where groups overlap, group ``i`` being the one around member ``i``.

    Attributes:
        name: Name of the level: its groups are ``data[name]``, its embeddings
            ``obsm["X_{model}_{name}"]``. Where it is ``None``, a recipe calls the first level
            ``"niche"`` and the second ``"tissue"``.
        overlaps: Whether a member may be part of several groups.
    """

    name: str | None
    overlaps = False

    @abstractmethod
    def __call__(self, members: Members) -> Tensor:
        """Groups of the members."""


@dataclass(frozen=True)
class Neighborhoods(LevelRule):
    """One group around each cell: the cell and its ``k`` nearest neighbours.

    Attributes:
        k: Others in a group.
        name: Name of the level.
        max_ratio: Distance beyond which others are left out, in units of the median distance of
            nearest neighbours, so that groups at edges and holes are smaller and not farther away;
            ``None`` for no limit.

    Raises:
        ValueError: If ``k`` or the ratio is not positive, or a slide has no more than ``k`` cells.
    """

    k: int = 15
    name: str | None = None
    max_ratio: float | None = None

    overlaps = True

    def __post_init__(self) -> None:
        positive(self, "k", integer=True, most=MOST_NEIGHBORS)
        if self.max_ratio is not None:
            positive(self, "max_ratio")

    def __call__(self, members: Members) -> Tensor:
        at_least(self, self.k + 1, members)
        return neighborhood_niches(members.pos, k=self.k, max_ratio=self.max_ratio)


@dataclass(frozen=True)
class Boxes(LevelRule):
    """One group around each cell: all cells in the closed square around it.

    Attributes:
        size_um: Side of the square in µm.
        name: Name of the level.

    Raises:
        ValueError: If the side is not positive.
    """

    size_um: float = 200.0
    name: str | None = None

    overlaps = True

    def __post_init__(self) -> None:
        positive(self, "size_um")

    def __call__(self, members: Members) -> Tensor:
        return neighborhood_niches(members.pos, mode="box", box_um=self.size_um)


@dataclass(frozen=True)
class Circles(LevelRule):
    """One group around each cell: all cells within a radius.

    Attributes:
        radius_um: Radius in µm.
        name: Name of the level.

    Raises:
        ValueError: If the radius is not positive.
    """

    radius_um: float = 27.0
    name: str | None = None

    overlaps = True

    def __post_init__(self) -> None:
        positive(self, "radius_um")

    def __call__(self, members: Members) -> Tensor:
        return neighborhood_niches(members.pos, mode="radius", radius_um=self.radius_um)


@dataclass(frozen=True)
class Grid(LevelRule):
    """Squares, counted from the lowest x and y of the cells of a slide.

    Squares of two levels nest where the larger side is a multiple of the smaller one.

    Attributes:
        size_um: Side of a square in µm.
        name: Name of the level.

    Raises:
        ValueError: If the side is not positive.
    """

    size_um: float = 54.4
    name: str | None = None

    def __post_init__(self) -> None:
        positive(self, "size_um")

    def __call__(self, members: Members) -> Tensor:
        x, y = members.slide.pos.min(axis=0)
        return grid_niches(members.pos, self.size_um, origin_um=(float(x), float(y)))


@dataclass(frozen=True)
class Parts(LevelRule):
    """Compact parts of about equally many members, by recursive halving.

    Attributes:
        max_members: Most members of a part.
        name: Name of the level.

    Raises:
        ValueError: If ``max_members`` is not positive.
    """

    max_members: int = 256
    name: str | None = None

    def __post_init__(self) -> None:
        positive(self, "max_members", integer=True)

    def __call__(self, members: Members) -> Tensor:
        return kd_parts(members.pos, self.max_members)


@dataclass(frozen=True)
class Annotated(LevelRule):
    """Groups annotated in a column of ``obs``; cells without a value have no group.

    Attributes:
        key: The column.
        name: Name of the level.

    Raises:
        ValueError: If a slide has no such column, no value in it, or the level is not the first.
    """

    key: str
    name: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) or not self.key:
            raise ValueError(f"Expected 'key' of Annotated as a column of obs, got {self.key!r}")

    def __call__(self, members: Members) -> Tensor:
        slide = members.slide
        if members.levels:
            raise ValueError(
                f"Expected {self} as the first level: obs[{self.key!r}] is of cells, not of groups"
            )
        groups = label_niches(obs_column(slide, self.key))
        if not bool((groups >= 0).any()):
            raise ValueError(
                f"Expected groups in obs[{self.key!r}] of slide {slide.slide_id!r}, all "
                f"{slide.num_cells} are missing"
            )
        return groups


@dataclass(frozen=True)
class Whole(LevelRule):
    """One group of all members: the section.

    Attributes:
        name: Name of the level.
    """

    name: str | None = None

    def __call__(self, members: Members) -> Tensor:
        return torch.zeros(len(members.pos), dtype=torch.long)
