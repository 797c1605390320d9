"""A tile with all its context as bytes, and back: narrow numbers, every crop one byte a value."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor
from torch_geometric import EdgeIndex

from spatiagraph._json import Schema, parse_json, validated
from spatiagraph._reasons import reason
from spatiagraph.data.cohort.crops import StoredCrops, as_bytes
from spatiagraph.data.convert.counts import take_rows
from spatiagraph.data.convert.tissue_data import CELL, TissueData
from spatiagraph.graph.edges import edges_by_target
from spatiagraph.graph.ranges import row_of_each

Arrays = dict[str, NDArray[Any]]

_DENSE = ("pos", "core", "cell_index", "gene_mask")


class TileNotes(Schema):
    """Notes of a stored tile: which it is, and what its arrays are.

    Attributes:
        source: Hash of the slide as it was stored.
        tile: Number of the tile in its slide.
        levels: Names of its levels, from cells upwards.
        items: Attributes with one row per cell or group → level.
        dtypes: Types of integers before they were stored as narrow ones.
        num_genes: Genes of the panel.
    """

    source: str
    tile: int
    levels: tuple[str, ...]
    items: dict[str, str]
    dtypes: dict[str, str]
    num_genes: int


class StoredTile(NamedTuple):
    """A tile as it was stored, and what it says of itself.

    Attributes:
        data: The tile as a small slide: counts sparse, crops not yet numbers in [0, 1].
        groups: Number of each of its groups in the slide: level → ``[m]``.
        notes: Which tile it is.
    """

    data: TissueData
    groups: Mapping[str, Tensor]
    notes: TileNotes


def pack(cut: TissueData, data: TissueData, rows: Mapping[str, Tensor], **which: Any) -> bytes:
    """Bytes of a tile, equal for equal tiles.

    Args:
        cut: What :func:`~spatiagraph.data.loader.cut_tile` returned.
        data: The whole slide it was cut from.
        rows: Rows of its cells and groups in the slide: level → rows.
        **which: ``source`` and ``tile`` of :class:`TileNotes`.
    """
    arrays: Arrays = {}
    dtypes: dict[str, str] = {}

    def put(name: str, value: Tensor | NDArray[Any]) -> None:
        values = value.numpy() if isinstance(value, Tensor) else value
        small = narrowed(values)
        if small.dtype != values.dtype:
            dtypes[name] = str(values.dtype)
        arrays[name] = np.ascontiguousarray(small)

    for key in ("pos", "core", "cell_index"):
        put(key, cut[key])
    put("gene_mask", data.gene_mask)
    _put_edges(put, "edge_index", cut.edge_index)
    for name in cut.level_names:
        put(name, cut[name])
        _put_edges(put, f"{name}_index", cut[f"{name}_index"])
        put(f"{name}_pos", cut[f"{name}_pos"])
        put(f"{name}/rows", rows[name])
    counts = take_rows(data.x, rows[CELL])
    if counts.layout is torch.strided:
        counts = counts.to_sparse_csr()
    put("x/size", counts.crow_indices().diff())
    put("x/gene", counts.col_indices())
    put("x/value", counts.values())
    for key, level in data.items_of.items():
        if key in data.crop_sources:
            crops, inside = data.crop_sources[key].read(rows[level])
            arrays[key], arrays[f"{key}/inside"] = as_bytes(crops), inside.numpy()
        else:
            put(key, take_rows(data[key], rows[level]))
    notes = TileNotes(
        levels=cut.level_names,
        items=dict(data.items_of),
        dtypes=dtypes,
        num_genes=int(data.x.size(1)),
        **which,
    )
    # one entry: safetensors keeps several in an order that changes from run to run
    return save(arrays, {"notes": json.dumps(notes.model_dump(), sort_keys=True)})


def unpack(packed: bytes) -> StoredTile:
    """The tile that :func:`pack` made bytes of.

    Args:
        packed: The bytes.

    Raises:
        ValueError: If they are none, or its parts do not fit each other.
    """
    try:
        arrays = load(packed)
        length = int.from_bytes(packed[:8], "little")
        header = parse_json(packed[8 : 8 + length], "the head of a tile")
        notes: TileNotes = validated(
            parse_json(header["__metadata__"]["notes"].encode(), "the notes of a tile"),
            TileNotes,
            "the notes of a tile",
        )
        for name, dtype in notes.dtypes.items():
            arrays[name] = arrays[name].astype(np.dtype(dtype))
        return _restored(arrays, notes)
    except (SafetensorError, LookupError, TypeError, AttributeError, RuntimeError) as err:
        raise ValueError(f"no tile: {reason(err)}") from err


def narrowed(values: NDArray[Any]) -> NDArray[Any]:
    """The same numbers as the narrowest integers that hold them, or as they are.

    Args:
        values: Any array. Floating-point numbers that are all whole and not negative become
            integers.

    Examples:
        >>> narrowed(np.array([0, 255])).dtype, narrowed(np.array([-1, 255])).dtype
        (dtype('uint8'), dtype('int16'))
        >>> narrowed(np.array([0.5])).dtype
        dtype('float64')
    """
    if values.dtype.kind == "f":
        if values.ndim != 1 or not _is_whole(values):
            return values
        largest, smallest = (int(values.max()), 0) if values.size else (0, 0)
    elif values.dtype.kind in "iu":
        largest, smallest = (int(values.max()), int(values.min())) if values.size else (0, 0)
    else:
        return values
    kinds = ("u1", "u2", "u4") if smallest >= 0 else ("i1", "i2", "i4")
    for kind in kinds:
        info = np.iinfo(kind)
        if info.min <= smallest and largest <= info.max and info.bits < 8 * values.itemsize:
            return values.astype(kind)
    return values


def _is_whole(values: NDArray[np.floating]) -> bool:
    whole = np.isfinite(values) & (values == np.rint(values)) & ~np.signbit(values)
    return bool(whole.all())


def _put_edges(put: Any, name: str, edges: EdgeIndex) -> None:
    (ptr, source), _ = edges.get_csc()
    put(f"{name}/degree", ptr.diff())
    put(f"{name}/source", source)


def _restored(arrays: Arrays, notes: TileNotes) -> StoredTile:
    """The tile of its arrays, once they are known to fit each other."""
    values = {name: torch.from_numpy(array) for name, array in arrays.items()}
    data = TissueData(**{key: values[key] for key in _DENSE}, levels=notes.levels)
    num = {CELL: len(data.pos)}
    num |= {name: len(values[f"{name}_pos"]) for name in notes.levels}
    below = CELL
    data.edge_index = _edges(values, "edge_index", num[CELL], num[CELL])
    groups: dict[str, Tensor] = {}
    for name in notes.levels:
        own = values[name]
        _check(own.shape == (num[below],), f"one group of {name!r} for each of {num[below]}")
        _check_range(own, -1, num[name], name)
        data[name], data[f"{name}_pos"] = own, values[f"{name}_pos"]
        data[f"{name}_index"] = _edges(values, f"{name}_index", num[below], num[name])
        groups[name], below = values[f"{name}/rows"], name
    for key in ("core", "cell_index"):
        _check(data[key].shape == (num[CELL],), f"{num[CELL]} of {key!r}")
    data.x = _counts(values, num[CELL], notes.num_genes)
    for key, level in notes.items.items():
        _check(len(values[key]) == num[level], f"{num[level]} of {key!r}")
        if f"{key}/inside" in values:
            data.put_crops(level, key, StoredCrops(arrays[key], arrays[f"{key}/inside"]))
        else:
            data.put(level, **{key: values[key]})
    return StoredTile(data, groups, notes)


def _edges(values: Mapping[str, Tensor], name: str, num_sources: int, num_targets: int) -> Any:
    degree, source = values[f"{name}/degree"], values[f"{name}/source"]
    _check(degree.shape == (num_targets,), f"{num_targets} of {name!r}")
    _check_range(degree, 0, len(source) + 1, name)
    _check(int(degree.sum()) == len(source), f"as many sources as {name!r} has")
    _check_range(source, 0, num_sources, name)
    return edges_by_target(source, row_of_each(degree), num_sources, num_targets)


def _counts(values: Mapping[str, Tensor], num_cells: int, num_genes: int) -> Tensor:
    size, gene, value = (values[f"x/{part}"] for part in ("size", "gene", "value"))
    _check(size.shape == (num_cells,), f"counts of {num_cells} cells")
    _check_range(size, 0, len(gene) + 1, "x")
    _check(int(size.sum()) == len(gene) == len(value), "as many counts as genes")
    _check_range(gene, 0, num_genes, "x")
    ptr = torch.cat([size.new_zeros(1), size.cumsum(0)])
    return torch.sparse_csr_tensor(ptr, gene, value, (num_cells, num_genes), check_invariants=False)


def _check(right: bool, expected: str) -> None:
    if not right:
        raise ValueError(f"expected {expected}")


def _check_range(values: Tensor, low: int, high: int, name: str) -> None:
    if values.numel():
        least, most = torch.aminmax(values)
        _check(low <= int(least) and int(most) < high, f"numbers of {name!r} in [{low}, {high})")
