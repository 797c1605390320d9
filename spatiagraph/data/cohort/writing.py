"""One slide into a cohort: its tiles first, then its table of cells, then the list of its files."""

import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from torch import Tensor
from tqdm.auto import tqdm

from spatiagraph import keys
from spatiagraph._files import full_disk_named
from spatiagraph.data.cohort.layout import (
    CELLS,
    ROW,
    TILE,
    TILES,
    SlideEntry,
    SlideFiles,
    chunked,
    file_hash,
    files_below,
    hash_of,
    read_files,
    write_files,
    write_group,
)
from spatiagraph.data.cohort.packing import narrowed, pack
from spatiagraph.data.cohort.tiles import has_tile, is_shard, write_tile
from spatiagraph.data.content import content_hash, table_hash
from spatiagraph.data.convert.embeddings import WIDTHS, level_widths_um
from spatiagraph.data.convert.tissue_data import TissueData
from spatiagraph.data.loader import TileDataset, cut_tile, rows_of
from spatiagraph.data.notes import our_notes
from spatiagraph.data.recipe import Recipe
from spatiagraph.data.slide import Slide
from spatiagraph.data.writable import make_names_writable, make_values_writable
from spatiagraph.data.zarr_tasks import zarr_writers_ended
from spatiagraph.graph.edges import plain_edges


class Tiling(NamedTuple):
    """Rule by which slides become tiles.

    Attributes:
        recipe: How a slide becomes a graph.
        tile_size: Core cells of a tile, at most.
        num_hops: Hops over the cell graph whose cells a tile holds.
    """

    recipe: Recipe
    tile_size: int
    num_hops: int


def source_hash(slide: Slide) -> str:
    """Hash of all of a slide that a cohort takes."""
    return hash_of([content_hash(slide), table_hash(slide)])[:16]


def folder_name(slide: Slide, source: str) -> str:
    """Name of the folder of a slide in a cohort.

    Args:
        slide: The slide.
        source: Its hash.
    """
    plain = re.sub(r"[^0-9A-Za-z_-]", "_", slide.slide_id)
    return f"{plain[:80]}-{source[:8]}"


def write_slide(
    slides: Path, slide: Slide, tiling: Tiling, *, progress: bool = False
) -> SlideEntry:
    """Write a slide into a folder of slides; what is there already is kept.

    Args:
        slides: Folder of slides.
        slide: The slide.
        tiling: How it becomes tiles.
        progress: Show a progress bar.

    Returns:
        How the manifest is to list it.

    Raises:
        ValueError: If the slide does not fit the recipe, or was only photographed.
        DiskFullError: If the disk takes no more; what was written stays.
    """
    if not slide.is_counted:
        raise ValueError(
            f"Expected slides with counts to make a cohort of, got slide {slide.slide_id!r} "
            "without. Embed it by itself, with a model of images"
        )
    source = source_hash(slide)
    folder = slides / folder_name(slide, source)
    alignment = tiling.recipe.panel.align(slide)
    whole = _whole(folder)
    if whole is None:
        with full_disk_named(folder), zarr_writers_ended(), _few_warnings():
            whole = _write(folder, slide, tiling, source, progress)
    return SlideEntry(
        slide_id=slide.slide_id,
        folder=folder.name,
        donor=slide.donor,
        expression=slide.expression,
        num_cells=slide.num_cells,
        num_genes=slide.num_genes,
        num_tiles=sum(is_shard(name) for name in whole.files),
        has_image=slide.image is not None,
        panel_coverage=alignment.coverage,
        content_hash=content_hash(slide),
        source_hash=source,
        files_hash=hash_of(whole.model_dump(mode="json")["files"]),
    )


def _whole(folder: Path) -> SlideFiles | None:
    """List of the files of a slide that was written to its end, or ``None``."""
    try:
        return read_files(folder)
    except ValueError:
        return None


def _write(folder: Path, slide: Slide, tiling: Tiling, source: str, progress: bool) -> SlideFiles:
    dataset = TileDataset([tiling.recipe(slide)], tiling.tile_size, tiling.num_hops)
    data, tiles = dataset.slides[0], [core for _, core in dataset.tiles]
    (folder / TILES).mkdir(parents=True, exist_ok=True)
    for left in (folder / TILES).glob(".*.new"):
        shutil.rmtree(left)
    write_group(folder / TILES, {})
    bar = tqdm(tiles, desc=slide.slide_id, unit="tile", disable=not progress)
    for number, core in enumerate(bar):
        if not has_tile(folder, number):
            tile = cut_tile(data, core, tiling.num_hops)
            packed = pack(tile, data, rows_of(tile), source=source, tile=number)
            write_tile(folder, number, packed)
    _write_cells(folder / CELLS, _cells(slide, data, tiles))
    found = SlideFiles(
        files={path.relative_to(folder).as_posix(): file_hash(path) for path in files_below(folder)}
    )
    write_files(folder, found)
    return found


def _cells(slide: Slide, data: TissueData, tiles: list[Tensor]) -> anndata.AnnData:
    """The table of cells: all genes, in the order of the store."""
    order = data.cell_index.numpy()
    given = slide.adata
    counts = slide.counts[order]
    tile_of = np.empty(len(order), dtype=np.int32)
    for number, core in enumerate(tiles):
        tile_of[core.numpy()] = number
    obs = pd.DataFrame(given.obs.iloc[order])
    obs[ROW], obs[TILE] = order, tile_of
    for level in data.level_names:
        if data.num_items(level) < data.num_nodes:  # else every cell has a group of its own
            obs[keys.group_key("cohort", level)] = data.group_of_cell(level).numpy()
    slots = {
        name: values[order]
        for name, values in given.obsm.items()
        if isinstance(values, np.ndarray) and name != keys.SPATIAL
    }
    adata = anndata.AnnData(
        X=csr_matrix((narrowed(counts.data), counts.indices, counts.indptr), counts.shape),
        obs=obs,
        var=given.var.copy(),
        obsm={keys.SPATIAL: slide.pos[order], **slots},
        uns={keys.UNS: {**_read_notes(given), "levels": list(data.level_names)}},
    )
    adata.uns[keys.UNS][WIDTHS] = level_widths_um(data)
    source, target = plain_edges(data.edge_index)
    distance = (data.pos[source] - data.pos[target]).norm(dim=1).numpy()
    (ptr, source), _ = data.edge_index.get_csc()
    parts = (source.numpy().astype(np.int32), ptr.numpy())  # row i: the neighbours of cell i
    shape = (len(order), len(order))
    adata.obsp[keys.DISTANCES] = csr_matrix((distance.astype(np.float32), *parts), shape)
    ones = np.ones(len(distance), dtype=np.float32)
    adata.obsp[keys.CONNECTIVITIES] = csr_matrix((ones, *parts), shape)
    for matrix in (adata.X, *adata.obsp.values()):
        matrix.sort_indices()
    return adata


def _read_notes(adata: anndata.AnnData) -> dict[str, Any]:
    notes = our_notes(adata, "read")
    return {"read": dict(notes)} if notes else {}


def _write_cells(place: Path, adata: anndata.AnnData) -> None:
    """Write the table of cells."""
    import zarr

    make_values_writable(adata)
    make_names_writable(adata, strict=True)
    adata.strings_to_categoricals()

    def write(writer: Any, store: Any, key: str, elem: Any, **given: Any) -> None:
        arguments = dict(given["dataset_kwargs"])
        kind = given["iospec"].encoding_type
        if kind == "csr_matrix":
            arguments |= chunked(elem.data)
        elif kind == "array" and isinstance(elem, np.ndarray) and elem.ndim:
            arguments |= chunked(elem)
        writer(store, key, elem, dataset_kwargs=arguments)

    if place.exists():  # of a try that was interrupted
        shutil.rmtree(place)
    group = zarr.open_group(place, mode="w", zarr_format=3)
    anndata.experimental.write_dispatched(group, "/", adata, write)


@contextmanager
def _few_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*autosharding.*")
        yield
