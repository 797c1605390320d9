"""SpatialData stores (``.zarr``): table, centroids, image placed by its transformation."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from spatiagraph import keys
from spatiagraph._files import check_store
from spatiagraph._optional import require
from spatiagraph._reasons import reason
from spatiagraph.data.checks import as_positions, check_positions, nearest
from spatiagraph.data.image import SlideImage
from spatiagraph.data.read.choose import choose, sections_of
from spatiagraph.data.read.molecules import as_text, count_molecules, gene_names
from spatiagraph.data.read.parts import (
    Options,
    Parts,
    find_scale,
    image_scale,
    notes_of,
    open_image,
    placed_only,
    recall,
)
from spatiagraph.data.read.structure import DAMAGED, open_structure
from spatiagraph.data.sparse import settle
from spatiagraph.data.transcripts import UNASSIGNED

_AXES = ("x", "y")
_BACKGROUND = "0"  # of a label image, unless a cell is called so
_OF_MOLECULES = ("qv", "z_plane", "overlaps_nucleus", "is_gene")
"""Columns of points that are kept beside place, gene and cell."""

_BROKEN = (*DAMAGED, AssertionError, AttributeError, IndexError)
"""Errors of SpatialData on a store, whose elements it takes to be of the kind they should be."""


def is_spatialdata(folder: Path) -> bool:
    """Check that a folder is a SpatialData store."""
    marks = (".zgroup", "zarr.json", ".zattrs", "zmetadata")
    return folder.suffix.lower() == ".zarr" or any((folder / m).exists() for m in marks)


def load_spatialdata(path: Path, options: Options) -> Parts | list[tuple[str, Parts]]:
    """Read a SpatialData store.

    Coordinates are those of ``obsm["spatial"]`` of the table, or the centroids of the shapes it
    annotates, in the shapes' own units; SpatialData does not say which units these are, so ``mpp``
    or ``pitch_um`` give the scale unless they are µm. A store without a table is counted from
    its points if these say which molecule is in which cell.

    Args:
        path: The store.
        options: Scale, image element and slot of the coordinates.

    Returns:
        The slide; where the table annotates several elements, the section of each by
        ``sample_key``, with its name.

    Raises:
        ImportError: The extra ``[io]`` is not installed.
        ValueError: It is no SpatialData store, has neither table nor assigned molecules, or has
            several sections and no ``sample_key`` to tell them apart.
    """
    sdata = _open_store(path)
    wanted = options.transcripts is not False or not len(sdata.tables)
    molecules, key = _molecules(sdata) if wanted else (None, None)
    has_cells = molecules is not None and "cell_id" in molecules
    if len(sdata.tables):
        name = _chosen_table(list(sdata.tables), options.table)
        adata = sdata.tables[name].copy()
        settle(adata, f"table {name!r}")
        if molecules is not None and has_cells:
            molecules["cell_id"] = _name_cells(molecules["cell_id"], adata, key)
        adata, heard = choose(adata, options)
        if len(regions := _regions(adata)) > 1:
            return _by_section(sdata, adata, name, molecules, heard, options)
        element = sdata[regions[0]] if regions and regions[0] in sdata else None
        adata = _placed(adata, element, name, options)
        return _slide(sdata, adata, element, molecules, heard, options, path.name)
    if molecules is None or not has_cells:
        have = ", ".join(f"{kind} {name!r}" for kind, name, _ in sdata.gen_elements())
        raise ValueError(
            f"Expected a table of counts in {path.name}, or points with a gene and a cell for "
            f"each molecule; got {have or 'an empty store'}"
        )
    molecules["cell_id"] = molecules["cell_id"].mask(molecules["cell_id"] == _BACKGROUND)
    adata = count_molecules(molecules)
    element = sdata.points[next(iter(sdata.points))]
    return _slide(sdata, adata, element, molecules, [], options, path.name)


def _open_store(path: Path) -> Any:
    spatialdata = require("spatialdata", extra="io", purpose="Reading a SpatialData .zarr")
    check_store(path)
    for place in sorted((path / "tables").glob("*/")):
        open_structure(place, f"{path.name}/tables/{place.name}")
    with warnings.catch_warnings():  # about old formats, which are read all the same
        warnings.simplefilter("ignore")
        try:
            return spatialdata.read_zarr(path)
        except _BROKEN as err:
            raise ValueError(
                f"Expected a SpatialData store, got {path.name}: {reason(err)}. The store is "
                "damaged or incomplete: copy it again"
            ) from err


def _slide(
    sdata: Any,
    adata: AnnData,
    element: Any,
    molecules: pd.DataFrame | None,
    heard: list[str],
    options: Options,
    file: str,
) -> Parts:
    """Pieces of a slide from cells that have a place in the units of an element."""
    adata = placed_only(adata, options)
    pos = as_positions(adata.obsm[keys.SPATIAL], f"obsm[{keys.SPATIAL!r}] of {file}")
    check_positions(pos, adata.obs_names)
    previous = notes_of(adata, options)
    written = options.mpp is None and options.pitch_um is None and bool(previous)
    scale = None if written else find_scale(options, adata, pos)
    mpp = None if scale is None else scale.mpp
    adata.obsm[keys.SPATIAL] = pos if mpp is None else pos * mpp
    if molecules is not None and mpp is not None:
        molecules[["x_um", "y_um"]] *= mpp
    notes = previous if written else {}
    image, name = _image(sdata, element, 1.0 if mpp is None else mpp, options, notes)
    parts = Parts(
        adata,
        image,
        molecules if options.transcripts is not False else None,
        known_um=scale is not None and scale.is_sure,
        notes={
            "format": "spatialdata",
            "mpp": mpp,
            "mpp_from": None if scale is None else scale.source,
            "image": name,
            "kind": options.kind,
        },
        warnings=heard,
        expression=None if options.kind == "genes" else "normalized",
    )
    if written:
        recall(parts, previous)
    return parts


def _regions(adata: AnnData) -> list[str]:
    """Elements that the cells of a table are rows of."""
    attrs = adata.uns.get("spatialdata_attrs", {})
    return [str(name) for name in np.atleast_1d(attrs.get("region", []))]


def _by_section(
    sdata: Any,
    adata: AnnData,
    table: str,
    molecules: pd.DataFrame | None,
    heard: list[str],
    options: Options,
) -> list[tuple[str, Parts]]:
    """The sections of a table that annotates several elements, each with the image it shares."""
    regions, attrs = _regions(adata), adata.uns["spatialdata_attrs"]
    column = str(attrs.get("region_key"))
    if options.sample_key is None:
        raise ValueError(
            f"Expected a table of one section, got {len(regions)} regions: "
            f"{', '.join(map(repr, regions[:8]))}. Pass sample_key={column!r} for a slide of each"
        )
    code, names = sections_of(adata.obs, options.sample_key)
    sections = []
    for number, name in enumerate(names):
        part = adata[code == number].copy()
        own = part.obs[column].astype(str).unique().tolist() if column in part.obs else regions
        if len(own) != 1 or own[0] not in sdata:
            raise ValueError(
                f"Expected one element of the store for section {name!r} of "
                f"obs[{options.sample_key!r}], got {', '.join(map(repr, own[:8]))}. Pass "
                f"sample_key={column!r}"
            )
        part.uns["spatialdata_attrs"] = {**attrs, "region": own[0]}
        part = _placed(part, sdata[own[0]], table, options)
        inside = None
        if molecules is not None and "cell_id" in molecules:
            inside = molecules[molecules["cell_id"].isin(part.obs_names)].copy()
        said = heard if number == 0 else []
        slide = _slide(sdata, part, sdata[own[0]], inside, list(said), options, table)
        sections.append((name, slide))
    return sections


def _placed(adata: AnnData, element: Any, name: str, options: Options) -> AnnData:
    """Cells of a table with places in the units of the element they annotate."""
    if options.spatial_key in adata.obsm:
        adata.obsm[keys.SPATIAL] = np.asarray(adata.obsm[options.spatial_key])
        return adata
    if options.spatial_key != keys.SPATIAL or element is None:
        raise ValueError(
            f"Expected coordinates in obsm[{options.spatial_key!r}] of table {name!r}, got none. "
            f"{nearest(options.spatial_key, list(adata.obsm))}. Pass spatial_key=…"
        )
    spatialdata = require("spatialdata", extra="io", purpose="Reading a SpatialData .zarr")
    system = next(iter(_systems(element)))
    with warnings.catch_warnings():  # about the order of ids, which does not matter here
        warnings.filterwarnings("ignore", message="The index of the dataframe is not monotonic")
        centres = spatialdata.get_centroids(element, coordinate_system=system).compute()
    inverse = np.linalg.inv(_affine(element, system))
    xy = np.c_[centres[list(_AXES)].to_numpy(np.float64), np.ones(len(centres))]
    placed = pd.DataFrame(xy @ inverse.T[:, :2], index=centres.index)
    attrs = adata.uns["spatialdata_attrs"]
    ids = adata.obs[attrs["instance_key"]]
    adata.obsm[keys.SPATIAL] = _place_by_ids(placed, ids, _regions(adata)[0])
    return adata


def _chosen_table(names: list[str], asked: str | None) -> str:
    """The table asked for, the only one, or the one called ``"table"``."""
    if asked is not None:
        if asked not in names:
            raise ValueError(
                f"Expected table={asked!r} to name a table of the store. {nearest(asked, names)}"
            )
        return asked
    if len(names) > 1 and "table" not in names:
        raise ValueError(
            f"Expected one table or one called 'table', got {', '.join(map(repr, names))}: pass "
            "table=… (--table), the name of one of them"
        )
    return "table" if "table" in names else names[0]


def _place_by_ids(placed: pd.DataFrame, ids: pd.Series, element: str) -> np.ndarray:
    """Places of the cells of a table; 7 in one and "7" in the other are the same cell.

    Raises:
        ValueError: No cell of the table is called as one of the shapes; names both.
    """
    index, wanted = placed.index, pd.Index(ids)
    if not index.isin(wanted).any():
        index, wanted = (pd.Index(as_text(i.to_series())) for i in (index, wanted))
    rows = index.get_indexer(wanted) if index.is_unique else np.full(len(wanted), -1)
    if len(rows) and (rows < 0).all():
        raise ValueError(
            f"Expected cells of the table in the shapes {element!r}, got none: obs[{ids.name!r}] "
            f"is {', '.join(map(repr, ids[:3].tolist()))}, … and the shapes are called "
            f"{', '.join(map(repr, placed.index[:3].tolist()))}, …"
        )
    pos = np.full((len(rows), 2), np.nan)
    pos[rows >= 0] = placed.to_numpy(np.float64)[rows[rows >= 0]]
    return pos


def _name_cells(ids: pd.Series, adata: AnnData, key: str | None) -> pd.Series:
    """Cells of molecules as ``obs_names`` call them; cells that the table lacks keep their id.

    Args:
        ids: As the points say it, missing outside of cells.
        adata: The table, whose ``obs`` may hold these ids in a column.
        key: Column of the points that the ids are from.
    """
    code, found = pd.factorize(ids)
    instance = adata.uns.get("spatialdata_attrs", {}).get("instance_key")
    columns = [pd.Index(adata.obs[c].astype(str)) for c in (key, instance) if c in adata.obs]
    rows = max(
        (names.get_indexer(found) for names in [*columns, adata.obs_names] if names.is_unique),
        key=lambda rows: np.count_nonzero(rows >= 0),
    )
    names = np.where(rows >= 0, adata.obs_names.to_numpy(object)[rows], found)
    names[(rows < 0) & (found == _BACKGROUND)] = None
    return pd.Series(np.array([*names, None], dtype=object)[code], index=ids.index)


def _molecules(sdata: Any) -> tuple[pd.DataFrame | None, str | None]:
    """The only point element that names genes, as a molecule table, and its column of cells."""
    named = [p for p in sdata.points.values() if p.attrs.get("spatialdata_attrs", {})]
    named = [p for p in named if p.attrs["spatialdata_attrs"].get("feature_key")]
    if len(named) != 1:
        return None, None
    points, attrs = named[0], named[0].attrs["spatialdata_attrs"]
    columns = {"x": "x_um", "y": "y_um", attrs["feature_key"]: "gene"}
    if attrs.get("instance_key"):
        columns[attrs["instance_key"]] = "cell_id"
    if "z" in points:
        columns["z"] = "z_um"
    columns |= {name: name for name in _OF_MOLECULES if name in points}
    table = points[list(columns)].compute().rename(columns=columns).reset_index(drop=True)
    table["gene"] = gene_names(table["gene"], "the points")
    if "cell_id" in table:
        ids = table["cell_id"].astype("string").astype(object)
        table["cell_id"] = ids.mask(ids.isin([*UNASSIGNED, "nan", "None"]))
    return table, attrs.get("instance_key")


def _image(
    sdata: Any, element: Any, mpp: float, options: Options, notes: Mapping[str, Any]
) -> tuple[SlideImage | None, str | None]:
    """The image asked for, or the finest one, placed in the units of the cells.

    A slide that was read before keeps the values that become black and white in crops.
    """
    names = list(sdata.images)
    asked = options.image
    if asked is False or (not names and (asked is None or asked is True)):
        return None, None
    if asked is not None and asked is not True:
        if str(asked) not in names:
            if Path(asked).exists():
                return open_image(asked, options.image_mpp or mpp, options.origin_um), str(asked)
            raise ValueError(
                f"Expected 'image' to name an image of the store or a file, got {str(asked)!r}. "
                f"{nearest(str(asked), names)}"
            )
        names = [str(asked)]
    if element is not None and len(names) > 1:  # those of other sections lie elsewhere
        beside = set(_systems(element))
        names = [n for n in names if beside & set(_systems(sdata.images[n]))] or names
    placed = {name: _place(sdata.images[name], element, name) for name in names}
    name = min(placed, key=lambda n: placed[n][0])
    scale, corner = placed[name]
    origin = options.origin_um or (float(corner[0] * mpp), float(corner[1] * mpp))
    stored = _levels(sdata.images[name])
    levels = [_without_alpha(level) for level in stored]
    path = None  # where the same pixels can be opened without the store
    if sdata.path is not None and levels[0].size == stored[0].size:
        path = Path(sdata.path) / "images" / name
    image = SlideImage(
        [level.data for level in levels],
        mpp=image_scale(options, scale * mpp, f"Image {name!r} of the store") or scale * mpp,
        origin_um=origin,
        value_range=notes.get("image_value_range") if asked is None or asked is True else None,
        path=path,
    )
    image.channel_names = tuple(str(c) for c in levels[0]["c"].values)
    return image, name


def _levels(image: Any) -> list[Any]:
    """Resolutions of an image, finest first."""
    if hasattr(image, "children") and image.children:  # DataTree
        return [next(iter(child.data_vars.values())) for child in image.children.values()]
    return [image]


def _without_alpha(level: Any) -> Any:
    """``[H, W, C]`` without the channel that only says where there is no picture."""
    level = level.transpose("y", "x", "c")
    return level.sel(c=["r", "g", "b"]) if list(level["c"].values) == list("rgba") else level


def _place(image: Any, element: Any, name: str) -> tuple[float, np.ndarray]:
    """Units per pixel and corner of an image, in the coordinates of ``element``."""
    system = _shared_system(image, element, name)
    to_cells = _affine(image, system)
    if element is not None:
        to_cells = np.linalg.inv(_affine(element, system)) @ to_cells
    a = to_cells[:2, :2]
    off = np.abs(a - a[0, 0] * np.eye(2)).max()
    if a[0, 0] <= 0 or off > 1e-3 * a[0, 0]:
        raise ValueError(
            f"Expected image {name!r} to be scaled and shifted against the cells, got a rotation, "
            f"reflection or shear: {a.round(4).tolist()}. Resample it first "
            "(spatialdata.rasterize), or pass image=False"
        )
    return float(np.sqrt(abs(np.linalg.det(a)))), to_cells[:2, 2]


def _systems(element: Any) -> dict[str, Any]:
    transformations = require("spatialdata.transformations", extra="io", purpose="Reading .zarr")
    return transformations.get_transformation(element, get_all=True)


def _shared_system(image: Any, element: Any, name: str) -> str:
    """A coordinate system that both know."""
    of_image = _systems(image)
    shared = of_image if element is None else [s for s in of_image if s in _systems(element)]
    if not shared:
        raise ValueError(
            f"Expected image {name!r} and the cells in one coordinate system, got "
            f"{', '.join(of_image)} and {', '.join(_systems(element))}"
        )
    return next(iter(shared))


def _affine(element: Any, system: str) -> np.ndarray:
    """Matrix from the element's own coordinates to a coordinate system, ``[3, 3]``."""
    return _systems(element)[system].to_affine_matrix(input_axes=_AXES, output_axes=_AXES)
