"""Rule that finds the pairs of genes whose molecules lie together in a cell."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from spatiagraph.data.colocalization import _kernels
from spatiagraph.data.colocalization.molecules import CellMolecules

_BLOCK = 256  # cells that a thread takes at a time
_KINDS = {
    "louvain": _kernels.LOUVAIN,
    "neighborhood": _kernels.NEIGHBORHOOD,
    "cell": _kernels.CELL,
}
_NULLS = {"none": _kernels.NONE, "shuffle": _kernels.SHUFFLE, "jitter": _kernels.JITTER}
SEPARATOR = "|"
"""Between the two genes in the name of a pair."""


class GenePairs(NamedTuple):
    """Pairs of genes of each cell, by numbers of genes and not by their ranks.

    Attributes:
        cell_ids: Name of each cell, ``[N]``.
        genes: Names of genes, ``[G]``.
        ptr: First pair of each cell and the end, ``[N + 1]``.
        pairs: Numbers of the two genes, the lower first, ``[P, 2]`` int32.
        weight: Share of the molecules of the cell that the best group has of both, ``[P]``.
    """

    cell_ids: np.ndarray
    genes: np.ndarray
    ptr: NDArray[np.int64]
    pairs: NDArray[np.int32]
    weight: NDArray[np.float32]

    def to_adata(self, cells: Sequence[str] | None = None) -> AnnData:
        """Cells × pairs, sparse: ``X`` is 1 where a cell has a pair.

        Variables are pairs of two genes, ``A|B`` in alphabetical order, with the columns ``gene_a``
        and ``gene_b``; ``layers["weight"]`` is the share of molecules.

        Args:
            cells: Cells, in order; those that have a pair when not given.

        Raises:
            ValueError: If names of genes make one name of two pairs.
        """
        code = self.pairs[:, 0].astype(np.int64) * len(self.genes) + self.pairs[:, 1]
        found, column = np.unique(code, return_inverse=True)
        a, b = self.genes[found // len(self.genes)], self.genes[found % len(self.genes)]
        names = [f"{x}{SEPARATOR}{y}" for x, y in zip(a, b, strict=True)]
        if len(set(names)) < len(names):
            raise ValueError(
                f"Expected names of genes without {SEPARATOR!r}, got two pairs of one name: rename "
                "the genes"
            )
        shape = (len(self.cell_ids), len(found))
        present = csr_matrix((np.ones(len(column), np.float32), column, self.ptr), shape=shape)
        weight = csr_matrix((self.weight, column, self.ptr), shape=shape)
        var = pd.DataFrame({"gene_a": a.astype(str), "gene_b": b.astype(str)}, index=names)
        if cells is None:
            rows = np.flatnonzero(np.diff(self.ptr))
            obs = pd.DataFrame(index=self.cell_ids[rows].astype(str))
            return AnnData(present[rows], obs, var, layers={"weight": weight[rows]})
        row = pd.Index(self.cell_ids).get_indexer(pd.Index(cells))
        take = csr_matrix(
            (np.ones((row >= 0).sum(), np.float32), (np.flatnonzero(row >= 0), row[row >= 0])),
            shape=(len(row), shape[0]),
        )
        obs = pd.DataFrame(index=pd.Index(cells).astype(str))
        return AnnData(take @ present, obs, var, layers={"weight": take @ weight})


@dataclass(frozen=True)
class Colocalization:
    """Rule of `"SpatialFormer" <https://www.biorxiv.org/content/10.1101/2025.01.18.633701>`_.

    Molecules of a cell at most ``radius_um`` apart are joined; communities of this graph are found
    by Louvain; two genes with at least ``min_copies`` molecules in one community lie together. A
    cell gives the same pairs whatever the order of its molecules and whoever else is in the table:
    the seed of its communities is made of ``seed`` and its name.

    Attributes:
        radius_um: Longest edge in µm; molecules at exactly this distance are joined.
        min_copies: Molecules of either gene that a group must have.
        mode: Groups: ``"louvain"`` communities; ``"neighborhood"``, the ball around each molecule,
            which needs no seed; ``"cell"``, all molecules of the cell, wherever they lie.
        use_z: Measure distances in three dimensions.
        resolution: Of Louvain.
        seed: Of Louvain.

    Raises:
        ValueError: If an argument is out of range; when called, ``use_z`` with molecules that have
            no z.
    """

    radius_um: float = 5.0
    min_copies: int = 3
    mode: Literal["louvain", "neighborhood", "cell"] = "louvain"
    use_z: bool = False
    resolution: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("radius_um", "resolution"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"Expected {name!r} above 0, got {getattr(self, name)}")
        if self.min_copies < 1 or self.seed < 0:
            raise ValueError(
                f"Expected 'min_copies' of 1 or more and 'seed' of 0 or more, got "
                f"{self.min_copies} and {self.seed}"
            )
        if self.mode not in _KINDS:
            raise ValueError(f"Expected 'mode' among {', '.join(_KINDS)}, got {self.mode!r}")

    def __call__(self, molecules: CellMolecules) -> GenePairs:
        """Pairs of every cell."""
        number, code, weight = self.run(molecules)
        num = max(len(molecules.genes), 1)
        return GenePairs(
            molecules.cell_ids,
            molecules.genes,
            np.concatenate([[0], np.cumsum(number)]),
            np.stack([code // num, code % num], axis=1).astype(np.int32),
            weight.astype(np.float32),
        )

    def run(
        self,
        molecules: CellMolecules,
        null: Literal["none", "shuffle", "jitter"] = "none",
        *,
        num_draws: int = 1,
        jitter_um: float = 0.0,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Pairs of every cell as measured, or of draws from a null, on all threads of torch.

        Args:
            molecules: Molecules by cell.
            null: ``"shuffle"`` deals the genes of a cell to its molecules anew; ``"jitter"``
                displaces molecules evenly within ``jitter_um``.
            num_draws: Draws of each cell.
            jitter_um: How far molecules are displaced, at most.

        Returns:
            Pairs of each cell over all draws ``[N]``; codes of pairs, lower gene · G + higher, and
            weights.
        """
        pos = molecules.pos if self.use_z else molecules.pos[:, :2]
        if self.use_z and pos.shape[1] < 3:
            raise ValueError("Expected molecules with z_um for use_z=True, got none")
        pos, seeds = np.ascontiguousarray(pos), self._seeds(molecules.cell_ids)
        settings = (
            _KINDS[self.mode], float(self.radius_um), float(self.resolution), self.min_copies,
            len(molecules.genes), _NULLS[null], float(jitter_um), num_draws,
        )  # fmt: skip

        def some(first: int) -> tuple[np.ndarray, ...]:
            last = min(first + _BLOCK, molecules.num_cells)
            found: tuple[np.ndarray, ...] = _kernels.pairs_of_cells(
                molecules.ptr, molecules.gene, pos, seeds, first, last, *settings
            )
            return found

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            parts = list(pool.map(some, range(0, molecules.num_cells, _BLOCK)))
        if not parts:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
        number, code, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
        return number, code, weight

    def _seeds(self, cell_ids: np.ndarray) -> NDArray[np.uint64]:
        """Seed of each cell, of the seed and its name alone; pandas' hash is the same anywhere."""
        named = pd.util.hash_array(np.asarray(cell_ids, dtype=object), categorize=False)
        return named ^ pd.util.hash_array(np.array([self.seed], dtype=np.int64))
