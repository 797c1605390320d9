"""``TypedNeighbors``: neighbours of two types, and the same cells with substitute neighbours."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatiagraph.data.slide import Slide
from spatiagraph.graph import radius_graph


@dataclass(frozen=True)
class TypedNeighbors:
    """Pairs of neighbours of which one cell is of one type and the other of another.

    Attributes:
        key: Column of ``obs`` with the type of each cell.
        first: Type of the first cell of a pair.
        second: Type of the second; may be the same.
        num_pairs: Pairs, at most; all when ``None``.
        radius_um: Longest distance of neighbours.
        seed: Seed of the choice.

    Raises:
        ValueError: If the number or the radius is not positive.
    """

    key: str
    first: str
    second: str
    num_pairs: int | None = 100
    radius_um: float = 30.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_pairs is not None and self.num_pairs < 1:
            raise ValueError(f"Expected 'num_pairs' of at least 1, got {self.num_pairs}")
        if not 0 < self.radius_um < np.inf:
            raise ValueError(f"Expected a positive 'radius_um', got {self.radius_um}")

    def __call__(self, slide: Slide) -> NDArray[np.int64]:
        """Rows of the cells of each pair, ``[P, 2]``, the first type first.

        Args:
            slide: The slide.

        Raises:
            ValueError: If there is no such column or type, or no such neighbours.
        """
        types = self._types(slide)
        ends = np.stack([np.asarray(end) for end in radius_graph(slide.pos, self.radius_um)])
        chosen = ends[:, (types[ends[0]] == self.first) & (types[ends[1]] == self.second)]
        if self.first == self.second:
            chosen = chosen[:, chosen[0] < chosen[1]]
        if not chosen.size:
            raise ValueError(
                f"Expected cells of {self.first!r} and {self.second!r} at most {self.radius_um:g} "
                f"µm apart on slide {slide.slide_id!r}, got none: widen the radius"
            )
        order = np.lexsort(chosen[::-1])
        if self.num_pairs is not None and len(order) > self.num_pairs:
            rng = np.random.default_rng(self.seed)
            order = np.sort(rng.permutation(order)[: self.num_pairs])
        return chosen[:, order].T.astype(np.int64)

    def others(self, slide: Slide, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        """The same first cells, each with a second cell that is no neighbour of it, ``[P, 2]``.

        Second cells are dealt anew among the pairs, so that genes of either side stay what they
        are; only who is beside whom is lost.

        Args:
            slide: The slide.
            pairs: Rows of the cells of each pair, ``[P, 2]``.

        Raises:
            ValueError: If a cell has all cells of the other type as neighbours.
        """
        rng = np.random.default_rng(self.seed)
        pool = np.flatnonzero(self._types(slide) == self.second)
        dealt = rng.permutation(pairs[:, 1])
        for _ in range(100):
            gap = np.linalg.norm(slide.pos[pairs[:, 0]] - slide.pos[dealt], axis=1)
            close = np.flatnonzero(gap <= self.radius_um)
            if not len(close):
                return np.stack([pairs[:, 0], dealt], axis=1)
            dealt[close] = rng.choice(pool, len(close))
        raise ValueError(
            f"Expected cells of {self.second!r} more than {self.radius_um:g} µm from each of "
            f"{self.first!r} on slide {slide.slide_id!r}, got none for {len(close)} of them"
        )

    def _types(self, slide: Slide) -> NDArray[np.object_]:
        if self.key not in slide.adata.obs:
            raise ValueError(f"Expected a column {self.key!r} in obs of slide {slide.slide_id!r}")
        types = slide.adata.obs[self.key].astype(str).to_numpy(object)
        known = sorted(set(types))
        for name in (self.first, self.second):
            if name not in known:
                shown = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
                raise ValueError(f"Expected a type of {self.key!r}, got {name!r}; it has {shown}")
        return types
