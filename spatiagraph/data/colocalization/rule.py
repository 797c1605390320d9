"""Rule that finds the pairs of genes whose molecules lie together in a cell."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from spatiagraph.data.colocalization import _kernels
from spatiagraph.data.colocalization.molecules import CellMolecules, MoleculesByCell

if TYPE_CHECKING:
    from anndata import AnnData

T = TypeVar("T")
_BLOCK = 256  # most cells that a thread takes at a time,
_MOLECULES = 1 << 16  # and most molecules: fifteen cells of 10^4 are work for more than one
_HELD = 1 << 20  # counts that are kept before they are added up
_KINDS = {
    "louvain": _kernels.LOUVAIN,
    "neighborhood": _kernels.NEIGHBORHOOD,
    "cell": _kernels.CELL,
}
_NULLS = {"nothing": _kernels.NONE, "shuffle": _kernels.SHUFFLE, "jitter": _kernels.JITTER}
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

    def to_adata(self, cells: Sequence[str] | None = None) -> "AnnData":
        """Cells × pairs, sparse: ``X`` is 1 where a cell has a pair.

        Variables are pairs of two genes, ``A|B`` in alphabetical order, with the columns ``gene_a``
        and ``gene_b``; ``layers["weight"]`` is the share of molecules.

        Args:
            cells: Cells, in order; those that have a pair when not given.

        Raises:
            ValueError: If names of genes make one name of two pairs.
        """
        from anndata import AnnData

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


class Null(NamedTuple):
    """Something random in the molecules of a cell.

    Attributes:
        kind: ``"shuffle"`` deals the genes of a cell to its molecules anew; ``"jitter"`` displaces
            molecules evenly within ``jitter_um``; ``"nothing"`` is what was measured.
        num_draws: Draws of each cell.
        jitter_um: How far molecules are displaced, at most.
    """

    kind: Literal["nothing", "shuffle", "jitter"] = "nothing"
    num_draws: int = 1
    jitter_um: float = 0.0


NOTHING = Null()


class Tally(NamedTuple):
    """Pairs and how many cells have each.

    Attributes:
        code: Lower gene · G + higher, sorted, ``[P]``.
        cells: Number of cells, ``[P]``.
    """

    code: NDArray[np.int64]
    cells: NDArray[np.int64]

    @classmethod
    def of(cls, code: NDArray[np.int64]) -> "Tally":
        """Count codes.

        Args:
            code: One per cell and pair, in any order.
        """
        return cls(*np.unique(code, return_counts=True))

    @classmethod
    def sum(cls, tallies: Iterable["Tally"]) -> "Tally":
        """Add up.

        Args:
            tallies: Of other cells each.
        """
        total = cls(np.zeros(0, np.int64), np.zeros(0, np.int64))
        held: list[Tally] = []
        for tally in tallies:
            held.append(tally)
            if sum(len(t.code) for t in held) > _HELD + len(total.code):
                total, held = _added([total, *held]), []
        return _added([total, *held])

    def at(self, code: NDArray[np.int64]) -> NDArray[np.float64]:
        """Number of cells of given pairs.

        Args:
            code: Sorted or not, ``[K]``.
        """
        if not len(self.code):
            return np.zeros(len(code))
        place = np.minimum(np.searchsorted(self.code, code), len(self.code) - 1)
        return np.where(self.code[place] == code, self.cells[place], 0).astype(np.float64)


def _added(tallies: Sequence[Tally]) -> Tally:
    code, place = np.unique(np.concatenate([t.code for t in tallies]), return_inverse=True)
    cells = np.bincount(place, np.concatenate([t.cells for t in tallies]), len(code))
    return Tally(code, cells.astype(np.int64))


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

    def __call__(self, molecules: MoleculesByCell) -> GenePairs:
        """Pairs of every cell."""
        parts = [(part.cell_ids, *self.run(part)) for part in molecules.parts()]
        ids, number, code, weight = zip(*parts, strict=True) if parts else ([], [], [], [])
        num = max(len(molecules.genes), 1)
        codes = np.concatenate([np.zeros(0, np.int64), *code])
        return GenePairs(
            np.concatenate([np.zeros(0, dtype=object), *ids]),
            molecules.genes,
            np.concatenate([[0], np.cumsum(np.concatenate([np.zeros(0, np.int64), *number]))]),
            np.stack([codes // num, codes % num], axis=1).astype(np.int32),
            np.concatenate([np.zeros(0), *weight]).astype(np.float32),
        )

    def run(
        self, molecules: CellMolecules, null: Null = NOTHING
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Pairs of every cell as measured, or of draws from a null, on all threads of torch.

        Args:
            molecules: Molecules by cell.
            null: What is random, and how often it is drawn.

        Returns:
            Pairs of each cell over all draws ``[N]``; codes of pairs, lower gene · G + higher, and
            weights.
        """
        parts = list(self._blocks(molecules, null, lambda *found: found))
        if not parts:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
        number, code, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
        return number, code, weight

    def tally(
        self,
        molecules: CellMolecules,
        null: Null = NOTHING,
        done: Callable[[int], object] | None = None,
    ) -> Tally:
        """Number of cells with each pair, over all draws; no pair of a single cell is kept.

        Args:
            molecules: Molecules by cell.
            null: What is random, and how often it is drawn.
            done: Called with the number of cells of every block that is through.
        """

        def count(number: np.ndarray, code: np.ndarray, weight: np.ndarray) -> tuple[int, Tally]:
            return len(number), Tally.of(code)

        def tallies() -> Iterator[Tally]:
            for num_cells, tally in self._blocks(molecules, null, count):
                yield tally
                if done is not None:
                    done(num_cells)

        return Tally.sum(tallies())

    def _blocks(self, molecules: CellMolecules, null: Null, then: Callable[..., T]) -> Iterator[T]:
        """What ``then`` makes of the pairs of each block of cells, in order."""
        pos = molecules.pos if self.use_z else molecules.pos[:, :2]
        if self.use_z and pos.shape[1] < 3:
            raise ValueError("Expected molecules with z_um for use_z=True, got none")
        pos, seeds = np.ascontiguousarray(pos), self._seeds(molecules.cell_ids)
        settings = (
            _KINDS[self.mode], float(self.radius_um), float(self.resolution), self.min_copies,
            len(molecules.genes), _NULLS[null.kind], float(null.jitter_um), null.num_draws,
        )  # fmt: skip

        def some(first: int, last: int) -> T:
            return then(
                *_kernels.pairs_of_cells(
                    molecules.ptr, molecules.gene, pos, seeds, first, last, *settings
                )
            )

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            yield from pool.map(some, *_cuts(molecules.ptr))

    def _seeds(self, cell_ids: np.ndarray) -> NDArray[np.uint64]:
        """Seed of each cell, of the seed and its name alone; pandas' hash is the same anywhere."""
        named = pd.util.hash_array(np.asarray(cell_ids, dtype=object), categorize=False)
        return named ^ pd.util.hash_array(np.array([self.seed], dtype=np.int64))


def _cuts(ptr: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """First cell of each block, and the cell after its last."""
    ends = [0]
    while ends[-1] < len(ptr) - 1:
        full = int(np.searchsorted(ptr, ptr[ends[-1]] + _MOLECULES, side="right")) - 1
        ends.append(min(max(full, ends[-1] + 1), ends[-1] + _BLOCK, len(ptr) - 1))
    return ends[:-1], ends[1:]
