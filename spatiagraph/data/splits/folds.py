"""``Folds``: cells held out in turn, with a margin of tissue that neither side has."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from spatiagraph.data.splits.leaks import away_from
from spatiagraph.graph.points import as_points


@dataclass(frozen=True, eq=False)
class Folds:
    """Folds of cells, each predicted from cells farther than a margin from all of it.

    Args:
        number: Fold of each cell, ``[N]`` integers, as :func:`spatial_blocks` gives them; below 0
            the cell takes no part.
        pos: Cell centres in µm, ``[N, 2]``, for a margin.
        margin_um: Least distance between the two sides in µm, exclusive; 0 for none.
        slide: Section of each cell, ``[N]``; sections are far apart.

    Raises:
        ValueError: There is a margin without a position for each cell.

    Examples:
        >>> folds = Folds(np.array([0, 1, 1]), [[0, 0], [3, 0], [8, 0]], margin_um=5)
        >>> folds.training(0)
        array([False, False,  True])
    """

    number: NDArray[np.int64]
    pos: ArrayLike | None = None
    margin_um: float = 0.0
    slide: ArrayLike | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.margin_um) and self.margin_um >= 0):
            raise ValueError(f"Expected 'margin_um' of at least 0, got {self.margin_um}")
        found = 0 if self.pos is None else len(np.asarray(self.pos))
        if self.margin_um and found != len(self.number):
            raise ValueError(
                f"Expected a position for each of {len(self.number)} cells with a margin of "
                f"{self.margin_um:g} µm, got {found}"
            )

    @property
    def numbers(self) -> NDArray[np.int64]:
        """The folds that there are, sorted."""
        return np.unique(self.number[self.number >= 0])

    def training(self, number: int) -> NDArray[np.bool_]:
        """Cells to learn from where a fold is held out, ``[N]``.

        Args:
            number: The fold.
        """
        held_out = self.number == number
        others = (self.number >= 0) & ~held_out
        if not self.margin_um or self.pos is None:
            return others
        return others & away_from(self.pos, held_out, self.margin_um, slide=self.slide)


def neighbor_distance_um(pos: ArrayLike, k: int = 15) -> float:
    """Median distance of a cell to its ``k``-th nearest in µm.

    That is how far a mean over ``k`` neighbours looks, and the least margin for vectors that hold
    one: those of cells that are nearer have neighbours in common.

    Args:
        pos: Cell centres of one slide in µm, ``[N, 2]``.
        k: Neighbours; the farthest of fewer cells where there are no more.

    Examples:
        >>> neighbor_distance_um([[0, 0], [1, 0], [2, 0]], k=2)
        2.0
    """
    points = as_points(pos)
    nearest = min(k, len(points) - 1)
    if nearest < 1:
        return 0.0
    return float(np.median(cKDTree(points).query(points, k=[nearest + 1])[0]))
