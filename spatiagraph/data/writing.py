"""``write``: a slide as one file that opens again without arguments."""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from spatiagraph import keys
from spatiagraph._files import check_store_place, replaced_folder
from spatiagraph._optional import require
from spatiagraph.data.h5ad_file import write_h5ad
from spatiagraph.data.image import SlideImage
from spatiagraph.data.outlines import Outlines
from spatiagraph.data.preview import add_preview
from spatiagraph.data.slide import Slide
from spatiagraph.data.writable import make_names_writable, make_values_writable
from spatiagraph.data.zarr_tasks import zarr_writers_ended

_BLOCK = 2048  # pixels read at a time
_COARSEST = 512  # pixels of the last level of a pyramid, at least


def write(slide: Slide, path: str | os.PathLike[str]) -> Path:
    """Write a slide; :func:`spatiagraph.read` opens it without arguments.

    ============= ================================================================================
    ``.h5ad``     cells and results; of the image, only where its file is: it is opened again by
                  itself if it lies beside the ``.h5ad`` or below, and else with ``image=``;
                  a small picture in ``uns["spatial"]``, on which scanpy and squidpy draw
    ``.zarr``     SpatialData: cells, their outlines, image pyramid and molecules, all in µm (needs
                  ``[io]``)
    ============= ================================================================================

    Values and names that a file cannot hold become such as it can, with a warning. A failed write
    leaves the old file. Images are copied block by block.

    Args:
        slide: The slide.
        path: File to write.

    Raises:
        ValueError: The suffix is another, or the slide holds what no file can, or its image
            is damaged; nothing is written.
        ImportError: A ``.zarr`` needs the extra ``[io]``.
        OSError: The place cannot be written to or is full.
    """
    target = check_target(path)
    if target.suffix.lower() == ".h5ad":
        if slide.image is not None and slide.image.path is not None:
            slide.image.check_pixels()
        add_preview(slide)
        return write_h5ad(slide.adata, target)
    adata = slide.adata.copy()
    said = make_values_writable(adata) + make_names_writable(adata, strict=True)
    with replaced_folder(target) as new, zarr_writers_ended():
        _write_zarr(slide, adata, new)
    if said:
        warnings.warn(f"Written to {target.name}: {'; '.join(said)}", stacklevel=2)
    return target


def check_target(path: str | os.PathLike[str]) -> Path:
    """Refuse a path that :func:`write` could not write to, before the work.

    Args:
        path: File to write.

    Raises:
        ValueError: The suffix is another.
        FileExistsError: There is a folder that is no Zarr store.
        ImportError: A ``.zarr`` needs the extra ``[io]``.
    """
    target = Path(path)
    if target.suffix.lower() not in (".h5ad", ".zarr"):
        raise ValueError(f"Expected a file that ends in .h5ad or .zarr, got {target.name}")
    if target.suffix.lower() == ".zarr":
        check_store_place(target)
        require("spatialdata", extra="io", purpose="Writing a SpatialData .zarr")
    return target


def _write_zarr(slide: Slide, adata: AnnData, path: Path) -> None:
    spatialdata = require("spatialdata", extra="io", purpose="Writing a SpatialData .zarr")
    models = require("spatialdata.models", extra="io", purpose="Writing a SpatialData .zarr")
    with warnings.catch_warnings():  # of dask and xarray, about their own future
        warnings.simplefilter("ignore")
        shapes = models.ShapesModel.parse(
            slide.pos,
            geometry=0,
            radius=_radius_um(slide.pos),
            index=slide.adata.obs_names.to_numpy(),
        )
        elements: dict[str, Any] = {"cells": shapes, "table": _table(slide, adata, models)}
        if slide.outlines is not None and slide.outlines.known.any():
            elements["cell_outlines"] = _polygons(slide.outlines, slide.adata.obs_names, models)
        if slide.image is not None:
            elements["image"] = _image(slide.image, models)
        if slide.transcripts is not None:
            elements["transcripts"] = _points(slide.transcripts, models)
        spatialdata.SpatialData.init_from_elements(elements).write(path, overwrite=True)


def _radius_um(pos: NDArray[np.float64]) -> float:
    """Nearly half the distance of neighbours, so that viewers draw cells that just do not touch."""
    if len(pos) < 2:
        return 1.0
    near = float(np.median(cKDTree(pos).query(pos, k=2)[0][:, 1]))
    return 0.45 * near if near > 0 else 1.0


def _polygons(outlines: Outlines, names: pd.Index, models: Any) -> Any:
    """Outlines of the cells that have one, called as the cells."""
    geopandas = require("geopandas", extra="io", purpose="Writing .zarr")
    shapely = require("shapely", extra="io", purpose="Writing .zarr")
    known = outlines.known
    cell = np.repeat(np.cumsum(known) - 1, np.diff(outlines.ptr))
    polygons = shapely.polygons(shapely.linearrings(outlines.corners, indices=cell))
    return models.ShapesModel.parse(
        geopandas.GeoDataFrame(geometry=polygons, index=names[known].to_numpy())
    )


def _table(slide: Slide, adata: AnnData, models: Any) -> Any:
    attrs = adata.uns.pop("spatialdata_attrs", {})
    region, instance = (  # columns of ours, or free names: obs["region"] may be the anatomy
        name if attrs.get(key) == name else _free(name, adata.obs)
        for key, name in (("region_key", "region"), ("instance_key", "instance_id"))
    )
    adata.obs[region] = pd.Categorical(["cells"] * slide.num_cells)
    adata.obs[instance] = adata.obs_names.to_numpy()
    adata.obsm[keys.SPATIAL] = slide.pos
    return models.TableModel.parse(adata, region="cells", region_key=region, instance_key=instance)


def _free(name: str, table: pd.DataFrame) -> str:
    """The name, or one like it that no column has."""
    taken = {str(c).lower() for c in table}
    while name in taken:
        name = f"{name}_of_file"
    return name


def _image(image: SlideImage, models: Any) -> Any:
    """The finest level, read block by block, and coarser ones made of it."""
    da = require("dask.array", extra="io", purpose="Writing .zarr")
    transformations = require("spatialdata.transformations", extra="io", purpose="Writing .zarr")
    height, width, channels = image.shape
    chunks = tuple(
        tuple(min(_BLOCK, size - at) for at in range(0, size, _BLOCK)) for size in (height, width)
    )

    def read(block_info: Any = None) -> np.ndarray:
        _, (top, bottom), (left, right) = block_info[None]["array-location"]
        return image.pixels(slice(top, bottom), slice(left, right)).transpose(2, 0, 1)

    pixels = da.map_blocks(read, dtype=image.dtype, chunks=((channels,), *chunks))
    scale = transformations.Scale([image.mpp, image.mpp], axes=("x", "y"))
    shift = transformations.Translation(list(image.origin_um), axes=("x", "y"))
    halvings = max(0, int(np.log2(max(1, min(height, width) / _COARSEST))))
    return models.Image2DModel.parse(
        pixels,
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"] if channels == 3 else None,
        scale_factors=[2] * halvings or None,
        transformations={"global": transformations.Sequence([scale, shift])},
    )


def _points(molecules: pd.DataFrame, models: Any) -> Any:
    renamed = {"x_um": "x", "y_um": "y", "z_um": "z"}
    table = molecules.rename(columns=renamed).reset_index(drop=True)
    has_cells = "cell_id" in table
    if has_cells:
        table["cell_id"] = table["cell_id"].astype("string").fillna("UNASSIGNED").astype(str)
    return models.PointsModel.parse(
        table,
        coordinates={a: a for a in ("x", "y", "z") if a in table},
        feature_key="gene",
        instance_key="cell_id" if has_cells else None,
    )
