"""Sub-slices as batches: ``CLS``, the virtual cells of the slide, and cells."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch_geometric.data import Batch

from spatiagraph.data.convert import TissueData
from spatiagraph.data.loader.sampling import SeededSampler
from spatiagraph.graph.pairs import NodeKind, known_pairs
from spatiagraph.models.stofm.slices import SubSlices

_POOL = 8  # batches among which sub-slices are sorted by length


class SubSliceDataset(Dataset[TissueData]):
    """The sub-slices of some slides; an item is a batch of those with the numbers in a list.

    Nodes come in the order ``CLS``, virtual cells, cells, context cells. Beside ``z``, ``place``
    (positions without unit), ``kind``, ``pair_index``, ``core`` (cells to answer for) and
    ``cell_index`` (-1 where there is no cell), a node has the virtual cell it belongs to, ``own``,
    and the number of cells of that one, ``own_size``.

    Args:
        slides: Slides, as :meth:`SToFM.prepare <spatiagraph.models.SToFM.prepare>` makes them.
        rule: How they were cut.
    """

    def __init__(self, slides: Sequence[TissueData], rule: SubSlices):
        self.slides, self.rule = list(slides), rule
        self.items: list[tuple[int, Tensor, Tensor]] = []
        for number, data in enumerate(self.slides):
            size = torch.bincount(data.part)
            parts = data.part.argsort(stable=True).split(size.tolist())
            for rows, more in zip(parts, rule.context(data.place, data.part), strict=True):
                if bool(data.core[rows].any()):
                    self.items.append((number, rows, more))
        self._pairs: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.items)

    def lengths(self) -> list[int]:
        """Number of nodes of each sub-slice."""
        return [
            1 + len(self.slides[i].virtual_x) + len(rows) + len(more)
            for i, rows, more in self.items
        ]

    def __getitem__(self, indices: list[int]) -> TissueData:
        batch: TissueData = Batch.from_data_list([self.sub_slice(i) for i in indices])
        return batch

    def sub_slice(self, index: int) -> TissueData:
        """One sub-slice.

        Args:
            index: Its number.
        """
        number, own, more = self.items[index]
        data, rows = self.slides[number], torch.cat([own, more])
        num_virtual = len(data.virtual_x)
        first, kind = 1 + num_virtual, torch.full((1 + num_virtual + len(rows),), NodeKind.CELL)
        kind[0], kind[1:first] = NodeKind.CLS, NodeKind.VIRTUAL
        none = torch.full((1,), -1)
        place = torch.cat([torch.zeros(1, 2), data.virtual_pos, data.place[rows]])
        if index not in self._pairs:
            pairs = known_pairs(place, kind, self.rule.num_neighbors, dense=self.rule.dense)
            self._pairs[index] = pairs.int()
        size = torch.cat([data.virtual_size, none * 0])  # the last one is of cells without: -1
        core = torch.zeros(len(kind), dtype=torch.bool)
        core[first : first + len(own)] = data.core[own]
        item = TissueData(
            z=torch.cat([data.z.new_zeros(1, data.z.size(1)), data.virtual_x, data.z[rows]]),
            place=place,
            pos=torch.cat([torch.zeros(first, 2), data.pos[rows]]),
            kind=kind,
            own=torch.cat([none, torch.arange(num_virtual), data.own[rows]]),
            own_size=torch.cat([none * 0, data.virtual_size, size[data.own[rows]]]),
            core=core,
            cell_index=torch.cat([none.expand(first), data.cell_index[rows]]),
            pair_index=self._pairs[index].long(),
            gene_mask=data.gene_mask,
            slide=number,
        )
        if data.get("x") is not None:  # what a cell encoder that is trained reads
            for key, value in data.take("cell", rows).items():
                if key in ("x", "gene_ids", "depth"):
                    item[key] = _after(first, value)
                    item.items_of[key] = "cell"
        return item


class SubSliceLoader(DataLoader[TissueData]):
    """Loader of batches of sub-slices, side by side as PyG does it.

    Args:
        slides: Slides, as :meth:`SToFM.prepare <spatiagraph.models.SToFM.prepare>` makes them.
        rule: How they were cut.
        tile_size: Cells of a batch, at most, or a single sub-slice.
        shuffle: New order in every epoch, in batches of sub-slices of like length; in order of the
            slides otherwise.
        seed: Seed of the order.
        num_workers: Worker processes.
    """

    def __init__(
        self,
        slides: Sequence[TissueData],
        rule: SubSlices,
        tile_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        num_workers: int = 0,
    ):
        if tile_size < 1:
            raise ValueError(f"Expected 'tile_size' to be positive, got {tile_size}")
        dataset = SubSliceDataset(slides, rule)
        super().__init__(
            dataset,
            batch_size=None,
            sampler=BucketSampler(dataset.lengths(), tile_size, shuffle=shuffle, seed=seed),
            num_workers=num_workers,
            generator=torch.Generator().manual_seed(seed),  # else it draws from torch's own
        )


class BucketSampler(SeededSampler[list[int]]):
    """Batches of items of like length, in a new order in every epoch.

    Args:
        lengths: Length of each item.
        max_length: Longest batch, all its items together, unless it is a single item.
        shuffle: Whether the order is new; items come as they are otherwise.
        seed: Seed of all epochs.
    """

    def __init__(self, lengths: Sequence[int], max_length: int, *, shuffle: bool, seed: int):
        super().__init__(seed)
        self.lengths, self.max_length, self.shuffle = np.asarray(lengths), max_length, shuffle
        self.num_items = len(list(self.items()))

    def items(self) -> Iterator[list[int]]:
        if not self.shuffle:
            yield from self._packed(np.arange(len(self.lengths)))
            return
        if not len(self.lengths):
            return
        # packed before shuffling, so that every epoch has equally many batches
        by_length = np.argsort(self.lengths, kind="stable")
        batches = self._packed(by_length)
        generator = self.generator()
        groups = np.split(by_length, np.cumsum([len(b) for b in batches])[:-1])
        for first in range(0, len(groups), _POOL):
            groups[first : first + _POOL] = self._mixed(groups[first : first + _POOL], generator)
        for i in torch.randperm(len(groups), generator=generator).tolist():
            yield groups[i].tolist()

    def _mixed(self, pool: list[np.ndarray], generator: torch.Generator) -> list[np.ndarray]:
        """Batches with items exchanged at random, wherever both stay short enough."""
        items, batch = np.concatenate(pool), np.repeat(np.arange(len(pool)), [*map(len, pool)])
        total = np.bincount(batch, self.lengths[items])
        limit = np.maximum(total, self.max_length)  # a single item may be longer
        partner = torch.randint(len(items), (len(items),), generator=generator).tolist()
        for i, j in enumerate(partner):
            more = self.lengths[items[j]] - self.lengths[items[i]]
            a, b = batch[i], batch[j]
            if a != b and total[a] + more <= limit[a] and total[b] - more <= limit[b]:
                items[i], items[j] = items[j], items[i]
                total[a], total[b] = total[a] + more, total[b] - more
        return np.split(items, np.cumsum([len(g) for g in pool])[:-1])

    def _packed(self, order: np.ndarray) -> list[list[int]]:
        batches: list[list[int]] = []
        filled = 0
        for i in order.tolist():
            if not batches or filled + self.lengths[i] > self.max_length:
                batches.append([])
                filled = 0
            batches[-1].append(i)
            filled += int(self.lengths[i])
        return batches


def _after(first: int, value: Tensor) -> Tensor:
    """Values of cells, after nodes that have none: zeros, or rows without a token."""
    if value.layout is torch.strided:
        return torch.cat([value.new_zeros(first, *value.shape[1:]), value])
    ptr = torch.cat([value.crow_indices().new_zeros(first), value.crow_indices()])
    shape = (first + value.size(0), value.size(1))
    return torch.sparse_csr_tensor(
        ptr, value.col_indices(), value.values(), shape, check_invariants=False
    )
