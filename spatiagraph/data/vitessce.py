"""``write_vitessce``: a slide and its results as a page of Vitessce (Keller et al. 2024).

The configuration is written as such: the package ``vitessce`` needs Zarr 2.
"""

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

from spatiagraph._files import replaced_folder
from spatiagraph._optional import require
from spatiagraph.data.checks import nearest
from spatiagraph.data.outlines import Outlines
from spatiagraph.data.slide import Slide
from spatiagraph.data.zarr_tasks import zarr_writers_ended

VERSION = "1.0.15"
"""Version of the schema of the configuration."""
_PLACES, _SHAPES, _UMAP = "spatial", "outlines", "X_umap"
_MAX_CORNERS = 32
_MAX_PX = 4096
_MAX_GROUPS = 100


def write_vitessce(
    slide: Slide, folder: str | os.PathLike[str], *, groups: Sequence[str] | None = None
) -> Path:
    """Write a folder that Vitessce shows: cells on the image, groups, genes, and a UMAP if any.

    ``vitessce.json`` is the configuration, ``cells.zarr`` an AnnData with log(1 + count), and
    ``image.zarr`` an OME-Zarr of the image with at most 4096 pixels a side (needs ``[io]``), all in
    µm. Serve the folder over HTTP with cross-origin requests allowed (``npx http-server --cors``),
    and give the viewer the address of ``vitessce.json``.

    Args:
        slide: The slide.
        folder: Folder to write, or to write anew.
        groups: Columns of ``obs`` to choose from; by default all that hold names or groups.

    Returns:
        The configuration.

    Raises:
        ValueError: There is no such column, or the folder holds something else.
        ImportError: The slide has an image, and the extra ``[io]`` is not installed.
        OSError: The place cannot be written to or is full.
    """
    place = Path(folder)
    columns = _groups(slide.adata.obs, groups)
    kept = place.is_dir() and any(place.iterdir()) and not (place / "vitessce.json").is_file()
    if kept or (place.exists() and not place.is_dir()):
        raise ValueError(f"Expected a new folder, or one of Vitessce to write anew, got {place}")
    if slide.image is not None:
        require("ome_zarr", extra="io", purpose="Writing an image for Vitessce")
    with replaced_folder(place) as new, zarr_writers_ended():
        # the format that every version of the viewer reads
        with anndata.settings.override(zarr_write_format=2), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*zarr.*v2")
            _cells(slide, columns).write_zarr(new / "cells.zarr")
        if slide.image is not None:
            _write_image(slide, new / "image.zarr")
        text = json.dumps(_config(slide, columns), indent=1)
        (new / "vitessce.json").write_text(text, encoding="utf-8")
    return place / "vitessce.json"


def _groups(obs: pd.DataFrame, asked: Sequence[str] | None) -> list[str]:
    have = [str(c) for c in obs]
    for column in asked or ():
        if column not in have:
            raise ValueError(
                f"Expected groups in obs[{column!r}], got none. {nearest(column, have)}"
            )
    if asked is not None:
        return list(asked)
    named = [c for c in have if not pd.api.types.is_numeric_dtype(obs[c])]
    return [c for c in named if 1 <= obs[c].nunique() <= _MAX_GROUPS and "/" not in c]


def _cells(slide: Slide, columns: Sequence[str]) -> AnnData:
    """What the viewer reads of the cells, and nothing else."""
    counts = csc_matrix(slide.counts, dtype=np.float32)
    if slide.expression == "counts":
        counts = counts.log1p()
    obs = slide.adata.obs[list(columns)].astype(object)
    obs = obs.where(obs.notna(), "none").astype(str).astype("category")
    obs.index = slide.adata.obs_names.astype(str)
    cells = AnnData(counts, obs=obs, var=pd.DataFrame(index=pd.Index(slide.symbols, dtype=object)))
    cells.obsm[_PLACES] = slide.pos.astype(np.float32)
    if slide.outlines is not None:
        cells.obsm[_SHAPES] = _as_polygons(slide.outlines, slide.pos)
    if _UMAP in slide.adata.obsm:
        cells.obsm[_UMAP] = np.asarray(slide.adata.obsm[_UMAP], dtype=np.float32)[:, :2]
    return cells


def _as_polygons(outlines: Outlines, pos: NDArray[np.float64]) -> NDArray[np.float32]:
    """Corners of each cell, as many for all, ``[N, C, 2]``: its own again, and again its centre."""
    length = np.diff(outlines.ptr)
    corners = int(np.clip(length.max(initial=1), 1, _MAX_CORNERS))
    at = np.arange(corners) * np.maximum(1.0, length[:, None] / corners)
    at = np.minimum(at.astype(np.int64), np.maximum(length[:, None] - 1, 0))  # [N, C]
    polygons = np.repeat(pos[:, None].astype(np.float32), corners, axis=1)
    known = outlines.known
    polygons[known] = outlines.corners[(outlines.ptr[:-1, None] + at)[known]]
    return polygons


def _write_image(slide: Slide, path: Path) -> None:
    with warnings.catch_warnings():  # of parts that we do not use
        warnings.simplefilter("ignore", DeprecationWarning)
        writer = require("ome_zarr.writer", extra="io", purpose="Writing an image for Vitessce")
        formats = require("ome_zarr.format", extra="io", purpose="Writing an image for Vitessce")
    assert slide.image is not None
    pixels, (x0, y0, x1, _) = slide.image.thumbnail(_MAX_PX)
    height, width, _ = pixels.shape
    levels = max(0, int(np.log2(max(1, min(height, width) / 512))))
    factors = [2**level for level in range(1, levels + 1)]
    step = (x1 - x0) / width
    places: list[list[dict[str, Any]]] = [
        [
            {"type": "scale", "scale": [1.0, step * factor, step * factor]},
            {"type": "translation", "translation": [0.0, y0, x0]},
        ]
        for factor in [1, *factors]
    ]
    axes = [{"name": "c", "type": "channel"}] + [
        {"name": name, "type": "space", "unit": "micrometer"} for name in "yx"
    ]
    hues = zip("RGB", ("FF0000", "00FF00", "0000FF"), strict=True)
    shown = {"start": 0, "end": 255, "min": 0, "max": 255}
    writer.write_image(
        np.ascontiguousarray(np.moveaxis(pixels, -1, 0)),
        str(path),
        scale_factors=factors,
        axes=axes,
        coordinate_transformations=places,
        fmt=formats.FormatV04(),
        metadata={
            "omero": {
                "channels": [
                    {"label": label, "color": hue, "window": shown, "active": True}
                    for label, hue in hues
                ]
            }
        },
    )


def _config(slide: Slide, columns: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = {
        "obsFeatureMatrix": {"path": "X"},
        "obsLocations": {"path": f"obsm/{_PLACES}"},
        "obsSets": [{"name": name, "path": f"obs/{name}"} for name in columns],
    }
    if slide.outlines is not None:
        options["obsSegmentations"] = {"path": f"obsm/{_SHAPES}"}
    views = [
        ("spatial", (0, 0, 7, 12)),
        ("layerController", (7, 0, 2, 6)),
        ("obsSets", (7, 6, 2, 6)),
        ("featureList", (9, 0, 3, 6)),
        ("obsSetSizes", (9, 6, 3, 6)),
    ]
    mapping: dict[str, Any] = {}
    if _UMAP in slide.adata.obsm:
        options["obsEmbedding"] = [
            {"path": f"obsm/{_UMAP}", "dims": [0, 1], "embeddingType": "UMAP"}
        ]
        views[-1] = ("scatterplot", (9, 6, 3, 6))
        mapping = {"embeddingType": {"A": "UMAP"}}
    files: list[dict[str, Any]] = [
        {"fileType": "anndata.zarr", "url": "cells.zarr", "options": options}
    ]
    if slide.image is not None:
        files.append({"fileType": "image.ome-zarr", "url": "image.zarr"})
    scopes = {"dataset": "A"} | dict.fromkeys(mapping, "A")
    return {
        "version": VERSION,
        "name": slide.slide_id,
        "description": f"{slide.num_cells} cells, {slide.num_genes} genes, in µm",
        "datasets": [{"uid": "A", "name": slide.slide_id, "files": files}],
        "initStrategy": "auto",
        "coordinationSpace": {"dataset": {"A": "A"}, **mapping},
        "layout": [
            {
                "component": name,
                "coordinationScopes": scopes if name == "scatterplot" else {"dataset": "A"},
                "x": x, "y": y, "w": w, "h": h,
            }
            for name, (x, y, w, h) in views
        ],
    }  # fmt: skip
