"""Pairs of cells that are neighbours or not, sampled when a batch needs them.

Only the graph and the positions are kept. Pair ``p`` of cell ``i`` in an epoch follows from the
seed, the epoch, the cell and ``p`` alone, so that workers, resumed runs and other batch sizes draw
the same.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from spatiagraph.data.convert.tissue_data import CELL, TissueData
from spatiagraph.data.counter import STEP, below, mixed
from spatiagraph.data.loader.cutting import cut_tile, fill_tile
from spatiagraph.data.loader.sampling import Numbers, SeededSampler

Negatives = Literal["uniform", "ring", "mixed"]
NEIGHBOR, UNIFORM, RING, FAR = 0, 1, 2, 3
"""Kinds of pairs: neighbours; non-neighbours of the slide, near by, far away."""
KINDS: dict[Negatives, tuple[int, ...]] = {
    "uniform": (UNIFORM,),
    "ring": (RING,),
    "mixed": (RING, FAR),
}
_WINDOW = 64  # batches among which cells of like length are put together


class NeighborPairs(NamedTuple):
    """Pairs of cells of a slide.

    Attributes:
        first: Row of the first cell of each pair, ``[P]``.
        second: Row of the second one, ``[P]``.
        kind: ``NEIGHBOR``, ``UNIFORM``, ``RING`` or ``FAR``, ``[P]``.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    kind: NDArray[np.int64]


class PairSource:
    """All pairs of neighbours of a slide, each with negative pairs.

    A cell with ``d`` neighbours gets ``d`` uniform others, all different. Where a slide has fewer,
    it gets these, and as many pairs of neighbours are left out. A cell without neighbours is in no
    pair of its own.

    Args:
        edge_index: Neighbours, symmetric, sorted by target, ``[2, E]``.
        pos: Positions in µm, ``[N, 2]``.
        negatives: ``"uniform"`` over the slide; ``"ring"``, at a distance in ``ring_um``; or
            ``"mixed"``, one in the ring and one beyond it for each pair of neighbours.
        ring_um: Distance of others that are near.
        seed: Seed of all draws.

    Raises:
        ValueError: If ``negatives`` is no such rule, or the ring is none.
    """

    def __init__(
        self,
        edge_index: Tensor,
        pos: Tensor,
        negatives: Negatives = "uniform",
        ring_um: tuple[float, float] = (80.0, 150.0),
        seed: int = 0,
    ):
        if negatives not in KINDS:
            raise ValueError(f"Expected 'negatives' among {', '.join(KINDS)}, got {negatives!r}")
        if not 0 <= ring_um[0] < ring_um[1] < np.inf:
            raise ValueError(f"Expected a ring with 0 <= inner < outer radius, got {ring_um}")
        source, target = (np.asarray(end) for end in edge_index)
        self.pos = np.ascontiguousarray(np.asarray(pos, dtype=np.float64))
        self.kinds, self.ring_um, self.seed = KINDS[negatives], ring_um, seed
        order = np.lexsort((source, target))
        self.neighbor, self.query = source[order], target[order]
        degree = np.bincount(target, minlength=len(self.pos))
        self.ptr = np.concatenate([[0], np.cumsum(degree)])
        self._bins = _bins(self.pos, ring_um[1])

    def __len__(self) -> int:
        """Number of pairs of neighbours, both ways."""
        return len(self.query)

    def draw(self, items: NDArray[np.int64], epoch: int = 0) -> NeighborPairs:
        """Sample pairs of neighbours, and the negatives of each.

        Args:
            items: Numbers of pairs of neighbours, ``[n]``.
            epoch: Others are new in every epoch; which cell comes first is too.
        """
        query, place = self.query[items], items - self.ptr[self.query[items]]
        found = [self.neighbor[items]]
        key = np.uint64(_key(self.seed, epoch))
        inner, outer = self.ring_um
        for which in self.kinds:
            given = (self.ptr, self.neighbor, self.pos, query, place, which)
            found.append(_negative_pairs(*given, inner, outer, key, *self._bins))
        second = np.stack(found, axis=1)
        kept = (second >= 0).all(axis=1)
        second = second[kept].ravel()
        first = np.repeat(query[kept], len(found))
        swap = _coins(np.repeat(items[kept], len(found)), key, len(found))
        kind = np.tile([NEIGHBOR, *self.kinds], int(kept.sum()))
        return NeighborPairs(
            np.where(swap, second, first), np.where(swap, first, second), kind.astype(np.int64)
        )


class NeighborPairLoader(DataLoader[TissueData]):
    """Loader of pairs of cells, in a new order in every epoch.

    A batch holds the cells of its pairs, all ``core``, without edges, and ``pair_index`` ``[2, P]``
    (rows in the batch), ``pair_label`` ``[P]`` (1 for neighbours) and ``pair_kind``. Pairs are of
    one slide, and of cells that are ``core``; cells of like length come together, so that little of
    a batch is padding.

    Args:
        slides: Whole slides, whose ``edge_index`` joins neighbours.
        num_pairs: Pairs of a batch, neighbours and others.
        negatives: See :class:`PairSource`.
        ring_um: See :class:`PairSource`.
        max_pairs: Pairs of an epoch; all when ``None``.
        lengths: Length of each cell of each slide, ``[N]``, by which pairs are put together.
        shuffle: New order and new others in every epoch; the same in each otherwise.
        seed: Seed of all draws.
        num_workers: Worker processes.

    Raises:
        ValueError: If no slide has neighbours among its core cells, or one has levels.
    """

    def __init__(
        self,
        slides: Sequence[TissueData],
        num_pairs: int = 64,
        *,
        negatives: Negatives = "uniform",
        ring_um: tuple[float, float] = (80.0, 150.0),
        max_pairs: int | None = None,
        lengths: Sequence[NDArray[np.integer]] | None = None,
        shuffle: bool = True,
        seed: int = 0,
        num_workers: int = 0,
    ):
        if levels := [data.level_names for data in slides if data.level_names]:
            raise ValueError(f"Expected slides without levels, got {', '.join(levels[0])}")
        self.slides, self.rows, self.sources = slides, [], []
        for data in slides:
            rows = np.flatnonzero(data.core.numpy())
            edges = edges_among(data, rows)
            self.rows.append(rows)
            self.sources.append(PairSource(edges, data.pos[rows], negatives, ring_um, seed))
        if not sum(map(len, self.sources)):
            raise ValueError(
                f"Expected cells with neighbours, got none on {len(slides)} slides: widen the "
                "radius of the recipe"
            )
        share = 1 + len(KINDS[negatives])
        sizes = [
            n[rows][source.query]
            for n, rows, source in zip(
                lengths or [np.zeros(data.num_nodes, dtype=np.int64) for data in slides],
                self.rows,
                self.sources,
                strict=True,
            )
        ]
        limit = None if max_pairs is None else max(1, max_pairs // share)
        sampler = _PairSampler(
            [len(source) for source in self.sources], sizes, max(1, num_pairs // share), limit,
            shuffle, seed,
        )  # fmt: skip
        super().__init__(
            Numbers(0),
            batch_size=None,
            sampler=sampler,
            collate_fn=self.batch,
            num_workers=num_workers,
            generator=torch.Generator().manual_seed(seed),
        )

    def batch(self, chosen: Any) -> TissueData:
        """The batch of some pairs of neighbours.

        Args:
            chosen: Slide, epoch, and numbers of the pairs.
        """
        slide, epoch, items = chosen
        pairs = self.sources[slide].draw(items, epoch)
        data = self.slides[slide]
        ends = np.stack([pairs.first, pairs.second])
        cells, index = np.unique(ends, return_inverse=True)
        rows = torch.from_numpy(self.rows[slide][cells])
        tile = fill_tile(cut_tile(data, rows, 0), data, slide)
        tile.pair_index = torch.from_numpy(index.reshape(ends.shape))
        tile.pair_label = torch.from_numpy((pairs.kind == NEIGHBOR).astype(np.float32))
        tile.pair_kind = torch.from_numpy(pairs.kind)
        return tile


class _PairSampler(SeededSampler[tuple[int, int, NDArray[np.int64]]]):
    """Batches of numbers of pairs of one slide, of like length."""

    def __init__(
        self,
        counts: Sequence[int],
        lengths: Sequence[NDArray[np.integer]],
        size: int,
        limit: int | None,
        shuffle: bool,
        seed: int,
    ):
        super().__init__(seed)
        total = sum(counts)
        share = 1.0 if limit is None or limit >= total else limit / total
        self.counts, self.lengths, self.size, self.shuffle = counts, lengths, size, shuffle
        self.taken = [min(n, max(1, round(n * share))) if n else 0 for n in counts]
        self.num_items = sum(-(-n // size) for n in self.taken)

    def items(self) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
        epoch = self.epoch if self.shuffle else 0
        generator = self.generator() if self.shuffle else torch.Generator().manual_seed(self.seed)
        batches = []
        for slide, (n, taken) in enumerate(zip(self.counts, self.taken, strict=True)):
            order = torch.randperm(n, generator=generator)[:taken].numpy()
            length = self.lengths[slide]
            for start in range(0, taken, self.size * _WINDOW):
                window = order[start : start + self.size * _WINDOW]
                window = window[np.argsort(length[window], kind="stable")]
                batches += [
                    (slide, epoch, window[i : i + self.size])
                    for i in range(0, len(window), self.size)
                ]
        for i in torch.randperm(len(batches), generator=generator).tolist():
            yield batches[i]


def edges_among(data: TissueData, rows: NDArray[np.int64]) -> Tensor:
    """Edges between some cells of a slide, numbered among these, ``[2, E]``.

    Args:
        data: The slide.
        rows: The cells, sorted.
    """
    number = np.full(data.num_items(CELL), -1)
    number[rows] = np.arange(len(rows))
    ends = number[np.stack([np.asarray(end) for end in data.edge_index])]
    return torch.from_numpy(ends[:, (ends >= 0).all(axis=0)])


def _bins(
    pos: NDArray[np.float64], width: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Cells in square bins: the bin of each along x and y, cells by bin, and where bins start."""
    at = ((pos - pos.min(0, initial=np.inf)) // width).astype(np.int64)
    shape = at.max(0, initial=0) + 1
    code = at[:, 0] * shape[1] + at[:, 1]
    order = np.argsort(code, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(code, minlength=int(shape.prod())))])
    return at, order, start, shape


@njit(cache=True, nogil=True)
def _allowed(
    i: int,
    j: np.int64,
    kind: int,
    neighbor: np.ndarray,
    pos: np.ndarray,
    inner: float,
    outer: float,
) -> bool:
    """Check that ``j`` is no neighbour of ``i``, and of the kind that is asked for."""
    if i == j:
        return False
    if kind != UNIFORM:
        square = (pos[i, 0] - pos[j, 0]) ** 2 + (pos[i, 1] - pos[j, 1]) ** 2
        near = square <= outer * outer
        if kind == FAR and near:
            return False
        if kind == RING and not (near and square >= inner * inner):
            return False
    at = np.searchsorted(neighbor, j)
    return at == len(neighbor) or neighbor[at] != j


@njit(cache=True, nogil=True)
def _block(
    i: int, at: np.ndarray, order: np.ndarray, start: np.ndarray, shape: np.ndarray
) -> np.ndarray:
    """Cells in the nine bins around a cell: all within the outer radius, and some beyond."""
    size = 0
    for bx in range(max(at[i, 0] - 1, 0), min(at[i, 0] + 2, shape[0])):
        for by in range(max(at[i, 1] - 1, 0), min(at[i, 1] + 2, shape[1])):
            size += start[bx * shape[1] + by + 1] - start[bx * shape[1] + by]
    cells, place = np.empty(size, np.int64), 0
    for bx in range(max(at[i, 0] - 1, 0), min(at[i, 0] + 2, shape[0])):
        for by in range(max(at[i, 1] - 1, 0), min(at[i, 1] + 2, shape[1])):
            code = bx * shape[1] + by
            for m in range(start[code], start[code + 1]):
                cells[place] = order[m]
                place += 1
    return cells


@njit(cache=True, nogil=True)
def _negative_pairs(
    ptr: np.ndarray,
    adjacent: np.ndarray,
    pos: np.ndarray,
    query: np.ndarray,
    place: np.ndarray,
    kind: int,
    inner: float,
    outer: float,
    key: np.uint64,
    at: np.ndarray,
    order: np.ndarray,
    start: np.ndarray,
    shape: np.ndarray,
) -> np.ndarray:
    """An other cell for each pair of neighbours, the ``place``-th of its cell; -1 for none.

    A cell has one stream of others, all different. Where surely many will do they are drawn from
    all cells until one does; else those that do are listed and dealt.
    """
    num = len(pos)
    found = np.full(len(query), -1, np.int64)
    for item in range(len(query)):
        i, wanted = query[item], place[item] + 1
        own = adjacent[ptr[i] : ptr[i + 1]]
        state = mixed(key + np.uint64(i) * STEP + np.uint64(kind))
        spare = num - 1 - len(own)
        if kind != UNIFORM:
            near = _block(i, at, order, start, shape)
            spare = num - len(near) if kind == FAR else 0
        if spare > 4 * len(own):
            chosen, count = np.empty(wanted, np.int64), 0
            while count < wanted:
                state += STEP
                j = below(state, num)
                fresh = _allowed(i, j, kind, own, pos, inner, outer)
                for c in range(count):
                    fresh = fresh and chosen[c] != j
                if fresh:
                    chosen[count] = j
                    count += 1
            found[item] = chosen[count - 1]
            continue
        candidates, known = (near if kind == RING else np.arange(num)), 0
        for cell in candidates:
            if _allowed(i, cell, kind, own, pos, inner, outer):
                candidates[known] = cell
                known += 1
        for c in range(min(wanted, known)):
            state += STEP
            m = c + below(state, known - c)
            candidates[c], candidates[m] = candidates[m], candidates[c]
        if wanted <= known:
            found[item] = candidates[wanted - 1]
    return found


@njit(cache=True, nogil=True)
def _key(seed: int, epoch: int) -> np.uint64:
    """Start of all draws of an epoch."""
    return mixed(mixed(np.uint64(seed)) + np.uint64(epoch))


@njit(cache=True, nogil=True)
def _coins(items: np.ndarray, key: np.uint64, width: int) -> np.ndarray:
    """A fair coin for each pair."""
    coin = np.empty(len(items), np.bool_)
    for n in range(len(items)):
        z = mixed(key + np.uint64(items[n]) * STEP) + np.uint64(n % width)
        coin[n] = below(z, 2) == 1
    return coin
