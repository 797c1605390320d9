"""Rules of SToFM for a slide: positions without unit, sub-slices, virtual cells."""

import warnings
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from spatiagraph.data.recipe.rule import Rule, positive
from spatiagraph.graph.encode import normalize_positions
from spatiagraph.graph.hierarchy import cluster_niches, sub_slices


@dataclass(frozen=True)
class SubSlices(Rule):
    """Sub-slices of about a thousand cells, in positions without unit.

    Attributes:
        partition: ``"kd"``, recursive halving; ``"overlap"``, the same with a halo of context
            cells; ``"grid"``, the squares of the published code. See
            :func:`~spatiagraph.graph.sub_slices`.
        norm: ``"rms"``, ``"bbox"`` (published) or ``"none"``, see
            :func:`~spatiagraph.graph.normalize_positions`. ``"bbox"`` and ``"grid"`` depend on how
            the slide lies.
        max_cells: Most cells of a sub-slice; of ``"grid"``, cells aimed at.
        halo: Nearest cells outside of a sub-slice that it sees as context, with ``"overlap"``.
        num_neighbors: Nearest nodes whose distance a node knows.
        dense: Whether all distances are known.

    Raises:
        ValueError: If a number is not positive or a name unknown.
    """

    partition: Literal["kd", "grid", "overlap"] = "kd"
    norm: Literal["rms", "bbox", "none"] = "rms"
    max_cells: int = 1000
    halo: int = 50
    num_neighbors: int = 49
    dense: bool = False

    def __post_init__(self) -> None:
        positive(self, "max_cells", "halo", "num_neighbors", integer=True)
        if self.partition not in ("kd", "grid", "overlap"):
            raise ValueError(
                f'Expected partition "kd", "grid" or "overlap", got {self.partition!r}'
            )
        if self.norm not in ("rms", "bbox", "none"):
            raise ValueError(f'Expected norm "rms", "bbox" or "none", got {self.norm!r}')

    def place(self, pos: Tensor) -> tuple[Tensor, float]:
        """Positions without unit ``[N, 2]`` float32, and the factor that µm were multiplied by.

        Args:
            pos: Cell centres in µm, ``[N, 2]``.
        """
        found = normalize_positions(pos.double(), self.norm)
        return found.pos.float(), found.scale

    def parts(self, pos: Tensor) -> Tensor:
        """Sub-slice of each cell, ``[N]``.

        Args:
            pos: Cell centres, ``[N, 2]``.
        """
        return sub_slices(pos, self.max_cells, mode="grid" if self.partition == "grid" else "kd")

    def context(self, pos: Tensor, part: Tensor) -> list[Tensor]:
        """Rows of the context cells of each sub-slice: those nearest to any of its own.

        Args:
            pos: Cell centres, ``[N, 2]``.
            part: Sub-slice of each cell, ``[N]``.
        """
        num_parts = int(part.max()) + 1 if len(part) else 0
        if self.partition != "overlap" or num_parts < 2:
            return [part.new_empty(0)] * num_parts
        tree, own = cKDTree(pos.numpy()), part.numpy()
        order = np.argsort(own, kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(own, minlength=num_parts))[:-1])
        return [torch.from_numpy(_nearest_outside(tree, rows, self.halo)) for rows in parts]


def _nearest_outside(tree: cKDTree, rows: NDArray[np.int64], num: int) -> NDArray[np.int64]:
    """Cells outside of a sub-slice that are nearest to any of its own, nearest first."""
    num = min(num, tree.n - len(rows))
    if not num or not len(rows):
        return np.empty(0, dtype=np.int64)
    at = np.asarray(tree.data)
    centre = at[rows].mean(0)
    reach = np.linalg.norm(at[rows] - centre, axis=1).max()
    # as many lie outside within this distance of the centre, so none that is asked for is further
    # from the centre than that and the reach of the sub-slice together
    bound = np.atleast_1d(tree.query(centre, k=len(rows) + num)[0])[-1]
    near = np.array(tree.query_ball_point(centre, (bound + reach) * (1 + 1e-9)), dtype=np.int64)
    near = np.setdiff1d(near, rows)
    away = cKDTree(at[rows]).query(at[near])[0]
    return near[np.lexsort((near, away))[:num]]


class Virtual(NamedTuple):
    """Virtual cells of a slide.

    Attributes:
        own: Virtual cell of each cell, ``[N]``.
        x: Mean vectors, ``[V, C]``.
        pos: Mean positions, ``[V, 2]``.
        method: What made the clusters.
    """

    own: Tensor
    x: Tensor
    pos: Tensor
    method: str


@dataclass(frozen=True)
class VirtualCells(Rule):
    r"""Virtual cells: means of clusters of all cells of a slide, nodes of every sub-slice.

    Clusters are of positions and vectors side by side,
    :math:`[\sqrt{\alpha}\,\mathbf{P}/\mathrm{rms}(\mathbf{P}),
    \sqrt{1-\alpha}\,\mathbf{Z}/\mathrm{rms}(\mathbf{Z})]`, with the principal components
    :math:`\mathbf{Z}` of the vectors. They do not depend on how the slide lies, nor on the order
    of its cells (where no two tie).

    Attributes:
        method: ``"leiden"``, which needs the extra ``[cluster]`` and warns where k-means has to
            take its place, or ``"kmeans"``, into ``min(50, N / 20)`` clusters.
        alpha: Weight of positions, :math:`\alpha`.
        num_components: Principal components.
        resolution: Of Leiden; halved until there are few enough clusters.
        num_neighbors: Neighbours in the graph of Leiden.
        max_clusters: Most virtual cells.
        features: ``"concat"``, or ``"sum2d"``: the sum of positions and of the first two
            components, as in the published code, which depends on how the slide lies.
        seed: The same seed gives the same clusters.

    Raises:
        ValueError: If a number is out of range or a name unknown.
    """

    method: Literal["leiden", "kmeans"] = "leiden"
    alpha: float = 0.2
    num_components: int = 30
    resolution: float = 1.0
    num_neighbors: int = 10
    max_clusters: int = 200
    features: Literal["concat", "sum2d"] = "concat"
    seed: int = 0

    def __post_init__(self) -> None:
        positive(self, "num_components", "num_neighbors", "max_clusters", integer=True)
        positive(self, "resolution")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"Expected 'alpha' between 0 and 1, got {self.alpha}")
        if self.method not in ("leiden", "kmeans"):
            raise ValueError(f'Expected method "leiden" or "kmeans", got {self.method!r}')
        if self.features not in ("concat", "sum2d"):
            raise ValueError(f'Expected features "concat" or "sum2d", got {self.features!r}')

    def __call__(self, x: Tensor, pos: Tensor) -> Virtual:
        """Virtual cells of a slide.

        Args:
            x: Vector of each cell, ``[N, C]``.
            pos: Positions without unit, ``[N, 2]``.
        """
        at = pos.double().numpy() - pos.double().numpy().mean(axis=0)
        # an order of cells that neither the file nor a rotation changes
        order = np.lexsort((x[:, 0].numpy(), np.linalg.norm(at, axis=1)))
        values = self._features(at[order], x.double().numpy()[order])
        labels, method = self._cluster(values)
        own = torch.empty(len(x), dtype=torch.long)
        own[torch.from_numpy(order)] = torch.from_numpy(labels)
        size = torch.bincount(own).unsqueeze(1)
        total = torch.zeros(len(size), x.size(1), dtype=torch.float64).index_add_(
            0, own, x.double()
        )
        middle = torch.zeros(len(size), 2, dtype=torch.float64).index_add_(0, own, pos.double())
        return Virtual(own, (total / size).float(), (middle / size).float(), method)

    def _features(self, pos: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        z = _components(x, 2 if self.features == "sum2d" else self.num_components)
        if self.features == "sum2d":
            longest = [np.linalg.norm(v, axis=1).max(initial=0.0) or 1.0 for v in (pos, z)]
            return self.alpha * pos / longest[0] + (1 - self.alpha) * z / longest[1]
        parts = [(self.alpha, pos), (1 - self.alpha, z)]
        rms = [np.sqrt((v**2).sum(axis=1).mean()) or 1.0 for _, v in parts]
        return np.hstack([np.sqrt(w) * v / r for (w, v), r in zip(parts, rms, strict=True)])

    def _cluster(self, values: NDArray[np.float64]) -> tuple[NDArray[np.int64], str]:
        if len(values) <= 2:
            return np.zeros(len(values), dtype=np.int64), "one"
        if self.method == "leiden":
            try:
                return self._leiden(values), "leiden"
            except ImportError as err:
                warnings.warn(f"{err}. Virtual cells are clusters of k-means instead", stacklevel=4)
        number = min(50, self.max_clusters, max(1, len(values) // 20))
        found = cluster_niches(values, number, seed=self.seed)
        return found.numpy(), "kmeans"

    def _leiden(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        resolution = self.resolution
        while True:
            labels = cluster_niches(
                values, resolution=resolution, num_neighbors=self.num_neighbors, seed=self.seed
            ).numpy()
            if labels.max() < self.max_clusters or resolution < 1e-6:
                break
            resolution /= 2
        if labels.max() >= self.max_clusters:  # a graph in so many pieces: the rest is one cluster
            labels = np.minimum(labels, self.max_clusters - 1)
        return labels


def _components(x: NDArray[np.float64], number: int) -> NDArray[np.float64]:
    """Principal components of rows, exactly, ``[N, min(number, rank)]``."""
    centred = x - x.mean(axis=0)
    value, vector = np.linalg.eigh(centred.T @ centred)
    kept = np.flatnonzero(value > 1e-10 * max(value[-1], 1e-300))[::-1][:number]
    return centred @ vector[:, kept] if len(kept) else np.zeros((len(x), 1))
