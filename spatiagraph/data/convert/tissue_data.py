"""The graph of a slide, as PyTorch Geometric batches it."""

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data
from torch_geometric.utils import is_undirected

from spatiagraph.data.convert.counts import as_scipy, take_rows
from spatiagraph.data.convert.subgraph import cell_subgraph
from spatiagraph.data.crops import Crops
from spatiagraph.graph.edges import plain_edges
from spatiagraph.graph.hierarchy import region_of

CELL = "cell"
"""Name of the level of the cells themselves."""


class TissueData(Data):
    """One slide, or a part of it, as a graph of cells with the levels above them.

    A level named ``niche`` (any number of levels, with any names) has ``niche``, ``niche_index``
    and ``niche_pos``; those of the level above refer to its groups as those refer to cells. What
    has one row per cell or group beside that (crops, labels, features) is added by :meth:`put`.

    Attributes:
        x: Counts of the panel, ``[N, G]``; dense, or sparse CSR for a whole slide.
        gene_mask: Measured genes, ``[G]``; ``[B, G]`` in a batch of slides.
        pos: Cell centres in µm, ``[N, 2]``.
        edge_index: Cell graph, :class:`~torch_geometric.EdgeIndex` sorted by target.
        levels: Names of the levels, from cells upwards.
        niche: Own group of each member of a level, ``[n]``; -1 for none.
        niche_index: Members → the groups they are part of, ``[2, P]``, sorted by group.
        niche_pos: Centres of the groups in µm, ``[M, 2]``.
        depth: Total counts over all genes of the slide, ``[N]``.
        image: Crops in ``[0, 1]``, ``[N, C, H, W]``, where there are any.
        image_mask: Cells with a crop, ``[N]``.
        window_um: Side of the window of each crop in µm, ``[N]``, where there are crops.
        niche_image: Crops of the groups of a level, ``[M, C, H, W]``, with ``niche_image_mask``.
        labels: Numbers of the labels of each cell, ``[N, K]``, -1 for unknown, where requested.
        z: Embeddings of cells computed before, ``[N, D]``, where there are any.
        core: Cells this batch answers for, ``[N]``; the rest is context.
        cell_index: Row of each cell in its slide, ``[N]``.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        # beside PyG's store, which it would collate: key → level, key → crops, and a rule
        self.__dict__.update(_items={}, _crops={}, _tokenizer=None)
        super().__init__(*args, **kwargs)

    @property
    def level_names(self) -> tuple[str, ...]:
        """Names of the levels, from cells upwards; those of its slides in a batch of them."""
        names: Any = self.get("levels") or ()
        return tuple(names[0]) if len(names) and not isinstance(names[0], str) else tuple(names)

    @property
    def tokenizer(self) -> Any:
        """Rule that turns sparse counts into tokens of a batch, or ``None``."""
        return self.__dict__.get("_tokenizer")

    @tokenizer.setter
    def tokenizer(self, rule: Any) -> None:
        self.__dict__["_tokenizer"] = rule

    @property
    def items_of(self) -> dict[str, str]:
        """Attributes with one row per cell or group: key → level."""
        return self.__dict__["_items"]

    @property
    def crop_sources(self) -> dict[str, Crops]:
        """Crops that are read batch by batch: key → source."""
        return self.__dict__["_crops"]

    def put(self, level: str, **values: Tensor) -> None:
        """Add attributes with one row per cell, or per group of a level; batches carry them along.

        Args:
            level: ``"cell"``, or the name of a level.
            **values: ``[n, ...]`` each.

        Raises:
            ValueError: If rows are not as many as cells or groups.
        """
        for key, value in values.items():
            if len(value) != self.num_items(level):
                raise ValueError(
                    f"Expected one row of {key!r} for each of {self.num_items(level)} items of "
                    f"{level!r}, got {len(value)}"
                )
            self[key] = value
            self.items_of[key] = level

    def put_crops(self, level: str, key: str, source: Crops) -> None:
        """Add crops that batches read when they need them.

        Args:
            level: ``"cell"``, or the name of a level.
            key: Attribute of the crops in a batch.
            source: One crop for each cell or group.
        """
        self.crop_sources[key] = source
        self.items_of[key] = level

    def drop(self, *keys: str) -> None:
        """Remove attributes and crops, where there are any."""
        for key in keys:
            self.items_of.pop(key, None)
            self.crop_sources.pop(key, None)
            if key in self:
                del self[key]

    def num_items(self, level: str) -> int:
        """Number of cells, or of groups of a level."""
        return self.num_nodes if level == CELL else self[f"{level}_pos"].size(0)

    def group_of_cell(self, level: str) -> Tensor:
        """Group of each cell at a level, ``[N]``; -1 for none."""
        names = self.level_names
        found = self[names[0]]
        for name in names[1 : names.index(level) + 1]:
            found = region_of(found, self[name])
        return found

    def take(self, level: str, rows: Tensor, *, cropped: Tensor | None = None) -> dict[str, Tensor]:
        """Attributes of some cells, or of some groups of a level; crops are read now.

        Args:
            level: ``"cell"``, or the name of a level.
            rows: ``[n]``.
            cropped: Rows whose crops are read, ``[n]`` bool, the mask of the others being false;
                all of them when not given.
        """
        found: dict[str, Tensor] = {}
        for key, of in self.items_of.items():
            if of != level:
                continue
            if key in self.crop_sources:
                found[key], found[f"{key}_mask"] = _read(self.crop_sources[key], rows, cropped)
            else:
                found[key] = take_rows(self[key], rows)
        if level == CELL and "x" in self:  # tokens stand in place of counts
            counts = take_rows(self.x, rows)
            if self.tokenizer is not None:
                found.update(self.tokenizer(as_scipy(counts), self.gene_mask.numpy()))
            else:
                found["x"] = counts if counts.layout is torch.strided else counts.to_dense()
        return found

    def dense(self) -> "TissueData":
        """The same with everything in memory: dense counts (or tokens) and all crops."""
        result = copy(self)
        for level in (CELL, *self.level_names):
            values = self.take(level, torch.arange(self.num_items(level)))
            for key, value in values.items():
                result[key] = value
                if key != "x":
                    result.items_of[key] = level
        result.crop_sources.clear()
        if self.tokenizer is not None:
            del result["x"]
        result.tokenizer = None
        return result

    def subgraph(self, subset: Tensor) -> "TissueData":
        """Some cells, the edges between them, and the groups that hold any of them.

        Args:
            subset: Rows of the cells in their new order, or a mask ``[N]``.

        Raises:
            ValueError: If rows repeat or are none of the cells.
        """
        return cell_subgraph(self, subset)

    def is_undirected(self) -> bool:
        """Check that every edge is there in both directions."""
        return is_undirected(plain_edges(self.edge_index), num_nodes=self.num_nodes)

    def clone(self) -> "TissueData":
        """Copy with tensors of its own."""
        return self._own(super().clone())

    def __copy__(self) -> "TissueData":
        return self._own(super().__copy__())

    def _own(self, other: Any) -> "TissueData":
        other.__dict__["_items"] = dict(self.__dict__.get("_items", {}))
        other.__dict__["_crops"] = dict(self.__dict__.get("_crops", {}))
        return other

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        names = self.level_names
        if key in names:
            return self.num_items(key)
        if key.endswith("_index") and key[: -len("_index")] in names:
            name = key[: -len("_index")]
            below = (CELL, *names)[names.index(name)]
            return torch.tensor([[self.num_items(below)], [self.num_items(name)]])
        if self._is_of_items(key):
            return 0
        return super().__inc__(key, value, *args, **kwargs)

    def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key == "gene_mask":
            return None
        if self._is_of_items(key):
            return 0
        return super().__cat_dim__(key, value, *args, **kwargs)

    def _is_of_items(self, key: str) -> bool:
        """Check that an attribute has a row per cell or group, which PyG judges by its name."""
        level = key.removesuffix("_pos")
        return key in self.items_of or key == "cell_index" or level in self.level_names


def _read(source: Crops, rows: Tensor, cropped: Tensor | None) -> tuple[Tensor, Tensor]:
    """Crops of some rows and their mask; those that are not to be read are black and masked."""
    if cropped is None or bool(cropped.all()):
        return source.read(rows)
    crops, inside = source.read(rows[cropped])
    image = crops.new_zeros(len(rows), *source.shape)
    mask = torch.zeros(len(rows), dtype=torch.bool)
    image[cropped], mask[cropped] = crops, inside
    return image, mask


def batched(graphs: Sequence[TissueData]) -> TissueData:
    """Graphs side by side as one, as PyG does it, which would take "no niche" for one of the first.

    Args:
        graphs: Slides, or parts of them.
    """
    parts = _equally_wide([copy(graph) for graph in graphs])
    names = parts[0].level_names
    edges = {"edge_index": CELL, **{f"{name}_index": name for name in names}}
    # of a single edge, or none, PyG cannot tell whether they are sorted
    few = [key for key in edges if sum(part[key].size(1) for part in parts) < 2]
    for part in parts:
        for key in few:
            part[key] = plain_edges(part[key])
    batch = Batch.from_data_list(parts)
    sizes = {level: sum(part.num_items(level) for part in parts) for level in (CELL, *names)}
    for key in few:
        of = edges[key]
        below = CELL if of == CELL else (CELL, *names)[names.index(of)]
        size = (sizes[below], sizes[of])
        batch[key] = EdgeIndex(batch[key], sparse_size=size, sort_order="col")
    for key in names:
        none = torch.cat([graph[key] < 0 for graph in graphs])
        batch[key] = batch[key].masked_fill(none, -1)
    return batch


def _equally_wide(parts: list[TissueData]) -> list[TissueData]:
    """Parts whose tokens, where they are padded, are so to the longest sequence of all."""
    for key in ("gene_ids", "gene_values"):
        padded = [p for p in parts if key in p and p[key].layout is torch.strided]
        width = max((part[key].size(1) for part in padded), default=0)
        for part in padded:
            if part[key].size(1) < width:
                part[key] = torch.nn.functional.pad(part[key], (0, width - part[key].size(1)))
    return parts
