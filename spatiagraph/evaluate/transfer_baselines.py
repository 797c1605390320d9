"""Baselines of transfer between donors: learned on training cells, applied to all."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA

from spatiagraph._optional import require
from spatiagraph.data.variability import gene_variability
from spatiagraph.evaluate.baselines import log_normalize, neighbor_mean
from spatiagraph.evaluate.cells import Cells
from spatiagraph.evaluate.genes import standardized_variance
from spatiagraph.graph.points import slide_rows

_NUM_COMPONENTS, _NUM_GENES, _NUM_NEIGHBORS, _MIN_CELLS = 30, 2000, 15, 3


Train = NDArray[np.bool_]


def normalized(cells: Cells, train: Train) -> csr_matrix:
    """Logarithm of the most variable genes of the training cells, all cells at their depth.

    Args:
        cells: Cells of all donors.
        train: Training cells, ``[N]``.

    Returns:
        ``[N, G']``, of genes seen in three training cells.

    Raises:
        ValueError: The training cells have fewer than two such genes.
    """
    kind = cast(Literal["counts", "normalized"], cells.expression)
    seen = np.flatnonzero(cells.counts[train].getnnz(axis=0) >= _MIN_CELLS)
    if len(seen) < 2:
        raise ValueError(f"Expected two genes seen in {_MIN_CELLS} training cells, got {len(seen)}")
    x = cells.counts[:, seen]
    total = np.asarray(x[train].sum(axis=1, dtype=np.float64)).ravel()
    target = float(np.median(total[total > 0])) if total.any() else 1.0
    log = log_normalize(x, target, expression=kind)
    if len(seen) <= _NUM_GENES:
        return log
    own = x[train]
    score = standardized_variance(own) if kind == "counts" else gene_variability(own, kind)
    return log[:, np.sort(np.argsort(-score, kind="stable")[:_NUM_GENES])]


def components(cells: Cells, train: Train) -> NDArray[np.floating]:
    """Principal components that are fitted to the training cells, ``[N, 30]`` at most."""
    log = normalized(cells, train)
    own = log[train]
    size = max(min(_NUM_COMPONENTS, min(own.shape) - 1), 1)
    model = PCA(size, svd_solver="arpack", random_state=0).fit(own)
    return np.asarray(model.transform(log))


def averaged(cells: Cells, train: Train) -> NDArray[np.floating]:
    """Mean of :func:`components` over a cell and its 15 nearest."""
    return neighbor_mean(components(cells, train), cells.pos, _NUM_NEIGHBORS, cells.slide)


def whitened(cells: Cells, train: Train) -> NDArray[np.floating]:
    """Averaged components, each divided by its deviation over training cells."""
    z = averaged(cells, train)
    deviation = z[train].std(axis=0)
    return z / np.where(deviation > 0, deviation, 1)


def centered(cells: Cells, train: Train) -> NDArray[np.floating]:
    """Averaged components less the mean of each slide."""
    z = averaged(cells, train)
    for rows in slide_rows(cells.slide, len(z)):
        z[rows] -= z[rows].mean(axis=0)
    return z


def harmonized(cells: Cells, train: Train) -> NDArray[np.floating]:
    """Averaged components after `Harmony <https://doi.org/10.1038/s41592-019-0619-0>`_ over slides.

    Raises:
        ImportError: The extra ``[harmony]`` is not installed.
    """
    harmonypy = require("harmonypy", extra="harmony", purpose="Harmony")
    z = averaged(cells, train).astype(np.float64)
    meta = pd.DataFrame({"slide": np.asarray(cells.slide).astype(str)})
    done = harmonypy.run_harmony(z, meta, ["slide"], verbose=False, random_state=0, ncores=1)
    corrected = np.asarray(done.Z_corr)  # older versions give components first
    return corrected if corrected.shape == z.shape else corrected.T


def square_roots(cells: Cells, train: Train) -> NDArray[np.floating]:
    """Square roots of the most variable genes of the training cells, all cells at their depth."""
    return np.sqrt(np.expm1(normalized(cells, train).toarray()))


@dataclass(frozen=True)
class Baseline:
    """Baseline of transfer.

    Attributes:
        embed: Cells and training cells → embedding of all cells.
        labels_only: Whether it is scored by its labels alone.
        needs: Package it needs.
    """

    embed: Callable[[Cells, Train], NDArray[np.floating]]
    labels_only: bool = False
    needs: str | None = None

    def installed(self) -> bool:
        """True if what it needs is there."""
        return self.needs is None or importlib.util.find_spec(self.needs) is not None


BASELINES = {
    "pca30": Baseline(components),
    "pca30_nbr15": Baseline(averaged),
    "pca30_nbr15_white": Baseline(whitened),
    "pca30_nbr15_centered": Baseline(centered),
    "harmony": Baseline(harmonized, needs="harmonypy"),
    "sqrt_expression": Baseline(square_roots, labels_only=True),
}
"""Name → baseline of :func:`~spatiagraph.evaluate.score_transfer`."""
