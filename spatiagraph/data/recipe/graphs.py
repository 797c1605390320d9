"""Graph rules: which cells are connected."""

from abc import abstractmethod
from dataclasses import dataclass

from torch_geometric import EdgeIndex

from spatiagraph.data.recipe.rule import MOST_NEIGHBORS, Members, Rule, at_least, positive
from spatiagraph.graph.build import delaunay_graph, group_graph, knn_graph, radius_graph


class GraphRule(Rule):
    """Rule that connects cells; called as ``rule(members) → EdgeIndex`` sorted by target."""

    @abstractmethod
    def __call__(self, members: Members) -> EdgeIndex:
        """Edges between the cells, ``[2, E]``, messages source → target."""


@dataclass(frozen=True)
class KNN(GraphRule):
    """Edges from the ``k`` nearest cells of each cell.

    Attributes:
        k: Neighbours of a cell.

    Raises:
        ValueError: If ``k`` is not positive, or a slide has no more than ``k`` cells.
    """

    k: int = 8

    def __post_init__(self) -> None:
        positive(self, "k", integer=True, most=MOST_NEIGHBORS)

    def __call__(self, members: Members) -> EdgeIndex:
        at_least(self, self.k + 1, members)
        return knn_graph(members.pos, self.k)


@dataclass(frozen=True)
class Radius(GraphRule):
    """Edges from all cells within a radius of each cell.

    Attributes:
        radius_um: Radius in µm.

    Raises:
        ValueError: If it is not positive.
    """

    radius_um: float = 27.0

    def __post_init__(self) -> None:
        positive(self, "radius_um")

    def __call__(self, members: Members) -> EdgeIndex:
        return radius_graph(members.pos, self.radius_um)


@dataclass(frozen=True)
class Delaunay(GraphRule):
    """Edges of the Delaunay triangulation.

    Attributes:
        max_um: Longest edge in µm; ``None`` for no limit.

    Raises:
        ValueError: If it is not positive.
    """

    max_um: float | None = None

    def __post_init__(self) -> None:
        if self.max_um is not None:
            positive(self, "max_um")

    def __call__(self, members: Members) -> EdgeIndex:
        return delaunay_graph(members.pos, max_um=self.max_um)


@dataclass(frozen=True)
class InGroups(GraphRule):
    """Edges between all cells of a group, self-loops included; an even spread of 64 in larger ones.

    Attributes:
        level: Name of the level, one whose groups do not overlap.

    Raises:
        ValueError: If the recipe has no such level, or its groups overlap.
    """

    level: str = "niche"

    def __call__(self, members: Members) -> EdgeIndex:
        return group_graph(members.levels[self.level].own)
