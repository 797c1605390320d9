"""Rules: the small exchangeable objects a recipe is made of."""

import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor
from torch_geometric import EdgeIndex

from spatiagraph._savable import extension
from spatiagraph.data.checks import nearest
from spatiagraph.data.slide import Slide
from spatiagraph.graph.edges import edges_by_target, plain_edges
from spatiagraph.graph.hierarchy import niche_positions


class Groups(NamedTuple):
    """Groups of one level: which members each has, and where it lies.

    Attributes:
        own: Group of each member, ``[n]``; -1 for none.
        members: Members → the groups they are part of, ``[2, P]``, sorted by group.
        pos: Centres in µm, ``[M, 2]``.
    """

    own: Tensor
    members: EdgeIndex
    pos: Tensor


MOST_NEIGHBORS = 100_000
"""Largest number of neighbours of a cell: more is no neighbourhood, and its edges fit nowhere."""


class Members(NamedTuple):
    """Argument of a rule: the cells of a slide, or the groups of the level below.

    Attributes:
        pos: Positions in µm, ``[n, 2]`` float64.
        slide: The slide they lie on.
        levels: Groups found so far, from cells upwards; a graph rule sees all levels.
    """

    pos: Tensor
    slide: Slide
    levels: Mapping[str, Groups]


class Rule:
    """Base of all rules: a frozen dataclass of plain values that is called with members.

    A rule of one's own derives from one of the four kinds (:class:`GraphRule`, :class:`LevelRule`,
    :class:`Crop`, :class:`TokenRule`), and is known from the moment it is defined: a saved model
    that uses it opens wherever that class has been imported.
    """

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        extension(cls)

    def config_args(self) -> dict[str, Any]:
        """Arguments that rebuild the rule, plain values.

        Raises:
            ValueError: If it is no dataclass.
        """
        if not is_dataclass(self) or isinstance(self, type):
            raise ValueError(
                f"Expected a rule that is a frozen dataclass, {type(self).__name__} is none: put "
                "@dataclass(frozen=True) above it to save it"
            )
        return asdict(self)


def positive(rule: Rule, *names: str, integer: bool = False, most: float = math.inf) -> None:
    """Refuse arguments of a rule that are not positive numbers.

    Args:
        rule: The rule.
        *names: Its attributes to look at.
        integer: Whether they are counts.
        most: Largest value that can be meant.

    Raises:
        ValueError: Naming the rule and the argument.
    """
    for name in names:
        value = getattr(rule, name)
        numeric = isinstance(value, int if integer else int | float) and not isinstance(value, bool)
        if not (numeric and 0 < value < math.inf):
            kind = "a whole number" if integer else "a number"
            raise ValueError(
                f"Expected {name!r} of {type(rule).__name__} as {kind} above 0, got {value!r}"
            )
        if value > most:
            raise ValueError(
                f"Expected {name!r} of {type(rule).__name__} of at most {most:,}, got {value:,}"
            )


def at_least(rule: Rule, needed: int, members: Members) -> None:
    """Refuse a slide with fewer cells, or groups, than a rule needs.

    Raises:
        ValueError: Naming rule and slide.
    """
    if len(members.pos) < needed:
        raise ValueError(
            f"Expected at least {needed} cells for {rule}, got {len(members.pos)} in "
            f"{members.slide.slide_id!r}: lower its number of neighbours"
        )


def obs_column(slide: Slide, name: str) -> pd.Series:
    """Column of ``obs``.

    Raises:
        ValueError: If there is none, with the nearest name.
    """
    if name not in slide.adata.obs:
        raise ValueError(
            f"Expected a column {name!r} in the obs of slide {slide.slide_id!r}, got none. "
            f"{nearest(name, [str(c) for c in slide.adata.obs])}"
        )
    return slide.adata.obs[name]


def as_groups(found: Tensor, pos: Tensor) -> Groups:
    """Groups from what a level rule returned.

    Args:
        found: Group of each member ``[n]``, -1 for none; or members → groups ``[2, P]`` in any
            order, group ``i`` being that of member ``i``. Numbers that no member has are left out.
        pos: Positions of the members, ``[n, 2]``.

    Raises:
        ValueError: If it is neither.
    """
    num = len(pos)
    if found.dtype == torch.long and found.dim() == 2 and found.size(0) == 2:
        own, edges = torch.arange(num), plain_edges(found)
        if isinstance(found, EdgeIndex) and found.is_sorted_by_col:
            return Groups(own, found, niche_positions(pos, found))
        if not edges.numel() or (int(edges.min()) >= 0 and int(edges.max()) < num):
            member, group = edges[:, edges[1].argsort(stable=True)]
            return _grouped(own, member, group, pos, num)
    if found.dtype != torch.long or found.shape != (num,):
        raise ValueError(
            f"Expected the group of each of {num} members as integers [{num}], or members → groups "
            f"[2, P] below {num}, got {str(found.dtype).removeprefix('torch.')} "
            f"{list(found.shape)}"
        )
    member = (found >= 0).nonzero().squeeze(1)
    numbers, group = found[member].unique(return_inverse=True)
    own = torch.full_like(found, -1)
    own[member] = group
    order = group.argsort(stable=True)
    return _grouped(own, member[order], group[order], pos, len(numbers))


def _grouped(own: Tensor, member: Tensor, group: Tensor, pos: Tensor, num_groups: int) -> Groups:
    """Groups of members that are sorted by group."""
    index = edges_by_target(member, group, len(pos), num_groups)
    return Groups(own, index, niche_positions(pos, index))
