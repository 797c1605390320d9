"""Slides side by side: what embedders read, with their effects taken out of what they make."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from spatiagraph import keys
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.slide import Slide
from spatiagraph.graph.build import knn_graph
from spatiagraph.inference.embedded import check_level, one_model_name

_MIN_CELLS = 3  # a gene seen in fewer cells is not looked at


@dataclass(frozen=True, eq=False)
class Sections:
    """Cells of one slide or several, one after the other.

    Args:
        slides: The slides, with different ids.
        center_slides: Take the mean of each slide out of an embedding, if there are several.
        regress_depth: Take what is linear in the logarithm of the depth out of an embedding, in
            each slide for itself.

    Raises:
        ValueError: There is none, or two have one id.
    """

    slides: Sequence[Slide]
    center_slides: bool = True
    regress_depth: bool = False

    def __post_init__(self) -> None:
        ids = [slide.slide_id for slide in self.slides]
        if not ids:
            raise ValueError("Expected at least one slide, got none")
        if twice := sorted({name for name in ids if ids.count(name) > 1}):
            raise ValueError(f"Expected slides with different ids, got {', '.join(twice)} twice")

    def part(self, rows: NDArray[np.bool_]) -> "Sections":
        """Some of the cells; a slide of which none are left is left out.

        Args:
            rows: Which, ``[N]``.
        """
        masks = [rows[self.number == number] for number in range(len(self.slides))]
        kept = [s[mask] for s, mask in zip(self.slides, masks, strict=True) if mask.any()]
        return Sections(kept, self.center_slides, self.regress_depth)

    @cached_property
    def num_cells(self) -> int:
        """Number of cells of all slides, ``N``."""
        return sum(slide.num_cells for slide in self.slides)

    @cached_property
    def number(self) -> NDArray[np.int64]:
        """Number of the slide of each cell, ``[N]``."""
        return np.repeat(np.arange(len(self.slides)), [s.num_cells for s in self.slides])

    @cached_property
    def pos(self) -> NDArray[np.float64]:
        """Cell centres in µm, ``[N, 2]``, each slide in its own coordinates."""
        return np.concatenate([slide.pos for slide in self.slides])

    @cached_property
    def expression(self) -> str:
        """Kind of :attr:`counts`.

        Raises:
            ValueError: Some slides have counts and some normalised values.
        """
        kinds = sorted({slide.expression for slide in self.slides})
        if len(kinds) > 1:
            raise ValueError("Expected counts of all slides or normalised values of all, got both")
        return kinds[0]

    @cached_property
    def counts(self) -> csr_matrix:
        """Counts of the genes that all slides measure and three cells have, ``[N, G]``."""
        if len(self.slides) == 1:
            x = self.slides[0].counts
            return x[:, np.flatnonzero(x.getnnz(axis=0) >= _MIN_CELLS)]
        return vstack([self.panel.counts(slide)[0] for slide in self.slides], format="csr")

    @cached_property
    def panel(self) -> GenePanel:
        """Genes that all slides measure and three cells have: columns of :attr:`counts`."""
        return GenePanel.from_slides(self.slides, "intersection", min_cells=_MIN_CELLS)

    @cached_property
    def depth(self) -> NDArray[np.float64]:
        """Total of each cell over all genes of its slide, ``[N]``."""
        return np.concatenate([slide.depth for slide in self.slides]).astype(np.float64)

    def slot(self, key: str) -> NDArray[np.floating]:
        """Slot of ``obsm`` of all slides, ``[N, D]``.

        Raises:
            ValueError: One has no such slot, or sizes differ.
        """
        for slide in self.slides:
            if key not in slide.adata.obsm:
                raise ValueError(
                    f"Expected obsm[{key!r}] in slide {slide.slide_id!r}, got "
                    f"{', '.join(map(str, slide.adata.obsm)) or 'no slot'}"
                )
        parts = [np.asarray(slide.adata.obsm[key], dtype=np.float32) for slide in self.slides]
        if len({part.shape[1] for part in parts}) > 1:
            raise ValueError(
                f"Expected obsm[{key!r}] of one size, got {[part.shape[1] for part in parts]}"
            )
        return np.concatenate(parts)

    def level(self, level: str | None = None) -> NDArray[np.floating]:
        """Embeddings of a level of the model that embedded the slides, ``[N, D]``.

        Args:
            level: ``"cell"`` or a level's name; the first above cells when not given.

        Raises:
            ValueError: They have none, or of different models, or there is no such level.
        """
        name = one_model_name(self.slides)
        for slide in self.slides:
            level = check_level(slide.adata, level)
        return self.slot(keys.embedding_key(name, str(level)))

    def smoother(self, k: int) -> csr_matrix:
        """Matrix ``[N, N]`` that averages over a cell and its ``k`` nearest of the same slide.

        Fewer where a slide has no more than ``k`` cells.
        """
        k = min(k, min(slide.num_cells for slide in self.slides) - 1)
        if k not in self._smoothers:
            self._smoothers[k] = self._smoother(k)
        return self._smoothers[k]

    @cached_property
    def _smoothers(self) -> dict[int, csr_matrix]:
        return {}

    def _smoother(self, k: int) -> csr_matrix:
        shape = (self.num_cells,) * 2
        if k < 1:
            return csr_matrix((np.ones(shape[0], np.float32), np.arange(shape[0]),
                               np.arange(shape[0] + 1)), shape=shape)  # fmt: skip
        source = knn_graph(self.pos, k, slide=self.number, include_self=True)[0].numpy()
        weight = np.full(len(source), 1 / (k + 1), dtype=np.float32)
        start = np.arange(self.num_cells + 1) * (k + 1)  # edges are sorted by target
        return csr_matrix((weight, source, start), shape=shape)

    def adjusted(self, z: NDArray[np.floating]) -> NDArray[np.floating]:
        """Embedding without the means of slides, and without depth on request.

        Args:
            z: ``[N, D]``; rows that are not finite stay as they are and count for nothing.
        """
        several = len(self.slides) > 1 and self.center_slides
        if not (several or self.regress_depth):
            return z
        z = z.copy()
        for number in range(len(self.slides)):
            rows = np.flatnonzero((self.number == number) & np.isfinite(z).all(axis=1))
            own, mean = z[rows], z[rows].mean(axis=0)
            if self.regress_depth:
                depth = np.log1p(self.depth[rows])
                depth -= depth.mean()
                slope = depth @ (own - mean) / max(float(depth @ depth), 1e-12)
                own = own - np.outer(depth, slope).astype(z.dtype)
            z[rows] = own - mean if several else own
        return z
