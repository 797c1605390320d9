"""Layouts of molecule tables: which columns mean what, their unit, and ids that name no cell."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spatiagraph import _json
from spatiagraph.data.read.cosmx import pixel_scale
from spatiagraph.data.read.molecules import BACKGROUND, COSMX, MERSCOPE, XENIUM, plain_columns
from spatiagraph.data.read.parts import Options
from spatiagraph.data.read.tables import DAMAGED, table_columns, unreadable

_NEEDED = {"x_um", "y_um", "gene"}


@dataclass(frozen=True)
class Layout:
    """Files, columns and unit of a molecule table.

    Attributes:
        files: Tables of one kind, in order.
        columns: Their columns → ours.
        mpp: µm per unit of x and y.
        no_cell: Cell ids, beside the usual ones, that mean "in no cell".
    """

    files: tuple[Path, ...]
    columns: dict[str, str]
    mpp: float = 1.0
    no_cell: frozenset[str] = frozenset()

    def only(self, columns: Collection[str] | None) -> "Layout":
        """The same with fewer columns beside position, gene and cell.

        Args:
            columns: Names of ours; all when not given.
        """
        if columns is None:
            return self
        kept = {*_NEEDED, "cell_id", "fov", *columns}
        return replace(self, columns={k: v for k, v in self.columns.items() if v in kept})


def layout_of(path: Path, mpp: float | None = None) -> Layout:
    """Recognise the layout of a molecule table.

    Args:
        path: Table, or SpatialData store.
        mpp: µm per unit of its coordinates, where it is not in µm.

    Raises:
        ValueError: It is of none that is known, or its scale is not.
    """
    if mpp is not None and not 0 < mpp < np.inf:
        raise ValueError(f"Expected 'mpp' to be positive µm per unit, got {mpp}")
    if path.suffix.lower() == ".zarr":
        return _of_store(path, mpp or 1.0)
    have = table_columns(path)
    for maker in (XENIUM, MERSCOPE, COSMX, plain_columns(have)):
        found = {k: v for k, v in maker.items() if k in have}
        if _NEEDED <= set(found.values()):
            break
    else:
        raise ValueError(
            f"Expected columns of molecules in {path.name}: x_location, y_location and "
            "feature_name (Xenium); global_x, global_y and gene (MERSCOPE); x_global_px, "
            "y_global_px and target (CosMx); or x, y and gene in µm; and cell_id or cell; got "
            f"{', '.join(have)}"
        )
    if maker is not COSMX:
        return Layout((path,), found, mpp or 1.0, BACKGROUND if "cell" in found else frozenset())
    if not {"cell_id", "fov"} <= set(found.values()):
        raise ValueError(f"Expected columns fov, cell_ID in {path.name}: they name the cells")
    scale, _ = pixel_scale(path.parent, Options(mpp=mpp))
    return Layout((path,), found, scale, BACKGROUND)


def _of_store(path: Path, mpp: float) -> Layout:
    """The only element of a SpatialData store whose points have genes."""
    named = {
        folder: attrs
        for folder in sorted((path / "points").glob("*/"))
        if (attrs := _attributes(folder)).get("spatialdata_attrs", {}).get("feature_key")
    }
    if len(named) != 1:
        raise ValueError(
            f"Expected one element of points with genes (a feature_key) in {path.name}, got "
            f"{', '.join(folder.name for folder in named) or 'none'}"
        )
    (folder, attrs), *_ = named.items()
    said = attrs["spatialdata_attrs"]
    files = tuple(sorted((folder / "points.parquet").glob("*.parquet"), key=_number))
    if not files:
        raise ValueError(f"Expected tables in {path.name}/points/{folder.name}, got none")
    try:
        schema = pq.read_schema(files[0])
    except DAMAGED as err:
        raise unreadable(files[0], err) from err
    columns = {"x": "x_um", "y": "y_um", said["feature_key"]: "gene"}
    if said.get("instance_key") in schema.names:
        columns[said["instance_key"]] = "cell_id"
    more = {"z": "z_um", "qv": "qv", "is_gene": "is_gene", "overlaps_nucleus": "overlaps_nucleus"}
    columns |= {k: v for k, v in more.items() if k in schema.names}
    if missing := [c for c in columns if c not in schema.names]:
        raise ValueError(
            f"Expected columns x, y and {said['feature_key']} in {files[0].name} of {path.name}, "
            f"got no {', '.join(missing)}"
        )
    cells = next((schema.field(k).type for k, v in columns.items() if v == "cell_id"), None)
    whole = cells is not None and pa.types.is_integer(cells)
    scale = mpp * _scale(attrs, path)
    return Layout(files, columns, scale, BACKGROUND if whole else frozenset())


def _attributes(folder: Path) -> dict:
    """Attributes of an element, of version 2 or 3 of Zarr."""
    for name in ("zarr.json", ".zattrs"):
        if (folder / name).is_file():
            found = _json.read_json(folder / name)
            attrs = found.get("attributes", {}) if name == "zarr.json" else found
            return attrs if isinstance(attrs, dict) else {}
    return {}


def _scale(attrs: dict, path: Path) -> float:
    """Units of the store per unit of the points; other transformations are not for streaming.

    Raises:
        ValueError: Points are turned, shifted, or scaled by another number along each axis.
    """
    matrices: list[NDArray[np.float64]] = []
    for step in attrs.get("coordinateTransformations", []):
        steps = step.get("transformations", []) if step.get("type") == "sequence" else [step]
        for each in steps:
            if each.get("type") == "scale":
                matrices.append(np.asarray(each["scale"][:2], dtype=np.float64))
            elif each.get("type") != "identity":
                matrices.append(np.array([np.nan, np.nan]))
    factor = np.prod(matrices, axis=0) if matrices else np.ones(2)
    if not (np.isfinite(factor).all() and factor[0] == factor[1] and factor[0] > 0):
        raise ValueError(
            f"Expected points that are where they are, or scaled, in {path.name}, got another "
            "transformation: open it with spatiagraph.read, and write its molecules as parquet"
        )
    return float(factor[0])


def _number(path: Path) -> tuple[int, str]:
    """Order of ``part.10.parquet`` after ``part.9.parquet``."""
    digits = "".join(filter(str.isdigit, path.stem))
    return (int(digits) if digits else -1, path.name)
