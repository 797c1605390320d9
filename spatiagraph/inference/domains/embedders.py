"""Embedders: slides to one row of numbers per cell, trained or plain."""

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags

from spatiagraph.data.normalization import log_normalize
from spatiagraph.data.variability import gene_variability
from spatiagraph.evaluate.baselines import pca
from spatiagraph.evaluate.genes import standardized_variance
from spatiagraph.inference.domains.sections import Sections

Features: TypeAlias = NDArray[np.floating] | csr_matrix
Transform = Literal["log", "sqrt", "logz"]

_CLIP = 10.0  # deviations from the mean, of a standardised gene


@runtime_checkable
class Embedder(Protocol):
    """Rule that makes an embedding of slides; any function of this signature is one."""

    def __call__(self, sections: Sections, /) -> Features:
        """Embedding of each cell, ``[N, D]``; a row that is not finite means there is none."""


@dataclass(frozen=True)
class Slot:
    """Embeddings of any method, in a slot of ``obsm``.

    Args:
        key: The slot, such as ``"X_pca"``.
    """

    key: str

    def __call__(self, sections: Sections, /) -> NDArray[np.floating]:
        return sections.slot(self.key)


@dataclass(frozen=True)
class Level:
    """Embeddings at a level of the model that embedded the slides.

    Args:
        level: ``"cell"``, or what a level of the model is called; the first above cells, that of
            niches in most models, when not given.
    """

    level: str | None = None

    def __call__(self, sections: Sections, /) -> NDArray[np.floating]:
        return sections.level(self.level)


@dataclass(frozen=True)
class AveragedPCA:
    """Principal components of variable genes, averaged over a cell and its nearest: no model.

    Args:
        num_components: Components.
        num_neighbors: Cells of the mean beside the cell itself; 0 leaves the components alone.
    """

    num_components: int = 30
    num_neighbors: int = 15

    def __call__(self, sections: Sections, /) -> NDArray[np.floating]:
        expression: Literal["counts", "normalized"] = sections.expression  # type: ignore[assignment]
        z = pca(sections.counts, self.num_components, expression=expression)
        return sections.smoother(self.num_neighbors) @ z


@dataclass(frozen=True)
class Genes:
    """The most variable genes themselves, cells brought to one depth.

    Args:
        transform: ``"log"`` of one plus the value, its root ``"sqrt"``, or ``"logz"``: the
            logarithm with genes of one deviation, clipped ten deviations above the mean.
        num_genes: Most genes to use, by the mean rank of their standardised variance over slides.
    """

    transform: Transform = "log"
    num_genes: int = 1000

    def __post_init__(self) -> None:
        if self.transform not in get_args(Transform):
            raise ValueError(
                f"Expected 'transform' among {', '.join(get_args(Transform))}, got "
                f"{self.transform!r}"
            )

    def __call__(self, sections: Sections, /) -> csr_matrix:
        total = sections.counts.sum(axis=1, dtype=np.float64)
        positive = np.asarray(total)[np.asarray(total) > 0]
        target = float(np.median(positive)) if positive.size else 1.0
        log = log_normalize(sections.counts, target, expression=sections.expression)
        log = log[:, variable_genes(sections, self.num_genes)]
        if self.transform == "sqrt":
            log.data = np.sqrt(np.expm1(log.data))
        if self.transform == "logz":
            mean = np.asarray(log.mean(axis=0)).ravel()
            square = np.asarray(log.multiply(log).mean(axis=0)).ravel()
            deviation = np.sqrt(np.maximum(square - mean**2, 1e-12))
            log.data = np.minimum(log.data, (mean + _CLIP * deviation)[log.indices])
            log = log @ diags(1 / deviation)
        return csr_matrix(log, dtype=np.float32)


def variable_genes(sections: Sections, num_genes: int) -> NDArray[np.int64]:
    """Columns of ``sections.counts`` of the most variable genes, ascending.

    Args:
        sections: The slides; each ranks the genes, and the mean rank counts.
        num_genes: Most genes to take.
    """
    counts = sections.counts
    if counts.shape[1] <= num_genes:
        return np.arange(counts.shape[1])
    rank = np.zeros(counts.shape[1])
    for number in range(len(sections.slides)):
        own = counts[np.flatnonzero(sections.number == number)]
        counted = sections.expression == "counts"
        score = standardized_variance(own) if counted else gene_variability(own, "normalized")
        rank += np.argsort(np.argsort(-score, kind="stable"), kind="stable")
    return np.sort(np.argsort(rank, kind="stable")[:num_genes])


def as_embedder(embedding: str | Embedder) -> Embedder:
    """Embedder of a name, or the one that is given.

    Args:
        embedding: ``"X_…"`` for a slot of ``obsm``, ``"averaged_pca"``, ``"log"``, ``"sqrt"`` or
            ``"logz"`` for genes, any other name for a level of the model; or an embedder.

    Raises:
        TypeError: Neither a name nor a function.
    """
    if isinstance(embedding, str):
        if embedding.startswith("X_"):
            return Slot(embedding)
        if embedding == "averaged_pca":
            return AveragedPCA()
        if embedding in get_args(Transform):
            return Genes(embedding)  # type: ignore[arg-type]
        return Level(embedding)
    if not isinstance(embedding, Embedder):
        raise TypeError(f"Expected an embedder or its name, got {type(embedding).__name__}")
    return embedding
