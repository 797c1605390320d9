"""``SlideToGraph``: how a model wants its slides, in values that can be saved."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric import EdgeIndex

from spatiagraph._config import build
from spatiagraph._savable import savable
from spatiagraph.data.checks import name_rows, nearest
from spatiagraph.data.convert.slide_to_data import to_data
from spatiagraph.data.convert.tissue_data import TissueData
from spatiagraph.data.labels import LabelSet
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.slide import Slide
from spatiagraph.graph.build import group_graph, knn_graph, radius_graph
from spatiagraph.graph.hierarchy import grid_niches, kd_parts, label_niches, neighborhood_niches


@savable
@dataclass(frozen=True)
class SlideToGraph:
    """How a model wants its slides: genes, graph, niches, regions, crops and labels.

    Saved with the model.

    Attributes:
        panel: Genes, in order.
        num_neighbors: Neighbours of a cell in the ``"knn"`` graph.
        niche_size: A niche is a cell and this many nearest others (``niche="neighborhood"``).
        tissue_size: Most niches of a tissue region (``tissue="parts"``).
        window_um: Side of the crop around a cell; ``None`` for no crops.
        size_px: Side of every crop in pixels.
        graph: Which cells are joined: the ``"knn"`` of each, all within a ``"radius"``, or all
            cells of a ``"niche"``, themselves included (of more than 64, an evenly spread 64; for
            niches that do not overlap).
        radius_um: Radius of ``graph="radius"`` and of ``niche="radius"``.
        niche: What a niche is: the ``"neighborhood"`` of each cell, all cells within a
            ``"radius"`` of it, a square of a ``"grid"``, or the cells of one of the ``"labels"``.
        niche_um: Side of a square, and of the image of a niche.
        niche_key: Column of ``obs`` for ``niche="labels"``; cells without one have no niche.
        tissue: What a region is: compact ``"parts"`` of about equally many niches, or squares of a
            ``"grid"``, laid so that whole squares of the niches fill it if sizes allow.
        tissue_um: Side of a square, and of the image of a region.
        labels: Labels to read from ``obs``.
        niche_image: Whether to crop around niches, where there is an image.
        tissue_image: Whether to crop around regions, where there is an image.
        window_key: Column of ``obs`` with the side of each cell's crop in µm, for crops that are
            all zoomed to one size; where it is missing, ``window_um``.

    Raises:
        ValueError: If an option is unknown, or does not go with another.
    """

    panel: GenePanel
    num_neighbors: int = 8
    niche_size: int = 15
    tissue_size: int = 256
    window_um: float | None = None
    size_px: int = 32
    graph: Literal["knn", "radius", "niche"] = "knn"
    radius_um: float = 27.0
    niche: Literal["neighborhood", "grid", "radius", "labels"] = "neighborhood"
    niche_um: float = 54.4
    niche_key: str | None = None
    tissue: Literal["parts", "grid"] = "parts"
    tissue_um: float = 217.6
    labels: LabelSet | None = None
    niche_image: bool = False
    tissue_image: bool = False
    window_key: str | None = None

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"Expected {name!r} {', '.join(known)}, got {getattr(self, name)!r}"
                )
        for name in ("radius_um", "niche_um", "tissue_um"):
            if not getattr(self, name) > 0:
                raise ValueError(f"Expected {name!r} above 0, got {getattr(self, name)}")
        if (self.niche == "labels") != (self.niche_key is not None):
            raise ValueError(
                "Expected 'niche_key' with niche=\"labels\" and with nothing else, got "
                f"niche={self.niche!r} and niche_key={self.niche_key!r}"
            )
        if self.graph == "niche" and self.niche not in ("grid", "labels"):
            raise ValueError(
                'Expected niches that do not overlap ("grid", "labels") with graph="niche", got '
                f"niche={self.niche!r}"
            )

    def __call__(self, slide: Slide, *, progress: bool = False) -> TissueData:
        """Convert a slide; counts stay sparse.

        Raises:
            ValueError: If the slide is too small, hardly shares genes with the panel, lacks the
                column of niches or windows, has classes that are not known, or is smaller than
                a crop.
        """
        self._check_size(slide)
        crops: dict[str, Any] = {}
        if slide.image is not None:
            if self.window_um is not None or self.window_key is not None:
                crops["image"] = (self.window_of(slide), self.size_px)
            if self.niche_image:
                crops["niche_image"] = (self.niche_um, self.size_px)
            if self.tissue_image:
                crops["tissue_image"] = (self.tissue_um, self.size_px)
        niche = self._niche(slide)
        return to_data(
            slide,
            panel=self.panel,
            graph=self._graph(niche),
            niche=niche,
            tissue=self._tissue(slide),
            labels=self.labels,
            sparse_counts=True,
            progress=progress,
            **crops,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        labels = None if self.labels is None else self.labels.to_dict()
        return {**asdict(self), "panel": self.panel.to_dict(), "labels": labels}

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote."""
        return build(cls, config, where="the saved recipe")

    def _check_size(self, slide: Slide) -> None:
        neighbors = self.num_neighbors if self.graph == "knn" else 0
        others = self.niche_size if self.niche == "neighborhood" else 0
        needed = max(neighbors, others) + 1
        if slide.num_cells < needed:
            raise ValueError(
                f"Expected at least {needed} cells for {neighbors} neighbours and niches of "
                f"{others} others, got {slide.num_cells} in {slide.slide_id!r}: lower "
                "num_neighbors and niche_size"
            )

    def _niche(self, slide: Slide) -> Tensor:
        """Niche of each cell, ``[N]``, or members → niches, ``[2, P]``."""
        if self.niche == "grid":
            return grid_niches(slide.pos, self.niche_um)
        if self.niche == "radius":
            return neighborhood_niches(slide.pos, mode="radius", radius_um=self.radius_um)
        if self.niche == "neighborhood":
            return neighborhood_niches(slide.pos, k=self.niche_size, max_ratio=None)
        niche = label_niches(_column(slide, str(self.niche_key)))
        if not bool((niche >= 0).any()):
            raise ValueError(
                f"Expected niches in obs[{self.niche_key!r}] of slide {slide.slide_id!r}, all "
                f"{slide.num_cells} are missing"
            )
        return niche

    def _graph(self, niche: Tensor) -> Callable[[Tensor], EdgeIndex]:
        if self.graph == "knn":
            return partial(knn_graph, k=self.num_neighbors)
        if self.graph == "radius":
            return partial(radius_graph, radius_um=self.radius_um)
        return lambda _: group_graph(niche)

    def _tissue(self, slide: Slide) -> Callable[[Tensor], Tensor]:
        if self.tissue == "parts":
            return partial(kd_parts, max_cells=self.tissue_size)
        x, y = slide.pos.min(axis=0)  # where the grid of niches starts
        return partial(grid_niches, size_um=self.tissue_um, origin_um=(float(x), float(y)))

    def window_of(self, slide: Slide) -> float | NDArray[np.float64]:
        """Side of the window of each cell in µm, or of all."""
        if self.window_key is None:
            assert self.window_um is not None  # one of the two is there
            return self.window_um
        window = _column(slide, self.window_key).to_numpy(dtype=np.float64, na_value=np.nan)
        if self.window_um is not None:
            window = np.where(np.isnan(window), self.window_um, window)
        wrong = np.flatnonzero(~(np.isfinite(window) & (window > 0)))
        if wrong.size:
            raise ValueError(
                f"Expected sizes in µm in obs[{self.window_key!r}], got {window[wrong[0]]:g} for "
                f"{name_rows(slide.adata.obs_names, wrong)}. Give window_um for missing ones"
            )
        return window


_CHOICES = {
    "graph": ("knn", "radius", "niche"),
    "niche": ("neighborhood", "grid", "radius", "labels"),
    "tissue": ("parts", "grid"),
}


def _column(slide: Slide, name: str) -> pd.Series:
    """A column of ``obs``."""
    if name not in slide.adata.obs:
        raise ValueError(
            f"Expected a column {name!r} in the obs of slide {slide.slide_id!r}, got none. "
            f"{nearest(name, [str(c) for c in slide.adata.obs])}"
        )
    return slide.adata.obs[name]
