"""One slide of a cohort as it was given: rows in their old order, results where they belong."""

import json
import warnings
from functools import cached_property
from pathlib import Path

import anndata
import numpy as np
import torch
from torch import Tensor

from spatiagraph import keys
from spatiagraph._reasons import reason
from spatiagraph.data.cohort.layout import CELLS, ROW, TILE, SlideEntry, SlideFiles, read_files
from spatiagraph.data.cohort.tiles import DAMAGED
from spatiagraph.data.cohort.verifying import check_files
from spatiagraph.data.notes import our_notes
from spatiagraph.data.slide import Slide


class StoredSlide(Slide):
    """A slide of a cohort as it was given, without its image: read once something of it is needed.

    Args:
        folder: Its folder.
        entry: What the manifest says of it.
        files: List of its files.
    """

    def __init__(self, folder: Path, entry: SlideEntry, files: SlideFiles):
        self.image = self.transcripts = None
        self.slide_id, self.donor, self.expression = entry.slide_id, entry.donor, entry.expression
        self._stored = (folder, entry, files)

    @cached_property
    def adata(self) -> anndata.AnnData:
        """Cells, in memory from now on.

        Raises:
            ValueError: A file is missing or damaged; it is named.
        """
        return _cells(*self._stored)

    @property
    def num_cells(self) -> int:
        """Number of cells (or spots), ``N``."""
        return self._stored[1].num_cells

    @property
    def num_genes(self) -> int:
        """Number of measured genes, ``G``."""
        return self._stored[1].num_genes


def _cells(folder: Path, entry: SlideEntry, files: SlideFiles) -> anndata.AnnData:
    """Cells of a slide in the order in which they were given, once its files are known as whole."""
    check_files(folder, files, entry.slide_id, [f"{CELLS}/"])
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning)
            adata = anndata.read_zarr(folder / CELLS)
        row = adata.obs.pop(ROW).to_numpy()
        adata.obs.pop(TILE)
        back = np.argsort(row)
        adata = adata[back].copy()
    except DAMAGED as err:
        raise ValueError(f"Expected a slide in {str(folder)!r}, found none: {reason(err)}") from err
    notes = dict(our_notes(adata))
    levels = [str(level) for level in notes.pop("levels", [])]
    named = {level: keys.group_key("cohort", level) for level in levels}
    groups = {level: adata.obs.pop(key) for level, key in named.items() if key in adata.obs}
    for result in files.results:
        notes |= {"name": result.name, "embed": json.loads(json.dumps(result.record))}
        notes["levels"] = result.levels
        for level, group in groups.items():
            adata.obs[keys.group_key(result.name, level)] = group
    adata.uns[keys.UNS] = notes
    if not files.results:
        for slot in (keys.DISTANCES, keys.CONNECTIVITIES):
            del adata.obsp[slot]
    return adata


def row_and_tile(folder: Path, entry: SlideEntry) -> tuple[Tensor, Tensor]:
    """Row in the slide that was given and number of the tile of each cell, in order of the store.

    Args:
        folder: Folder of the slide.
        entry: What the manifest says of it.

    Raises:
        ValueError: They are missing or damaged.
    """
    import zarr

    listed = read_files(folder, entry.files_hash)
    parts = [f"{CELLS}/obs/{name}/" for name in (ROW, TILE)]
    check_files(folder, listed, entry.slide_id, parts)
    found = []
    for name in (ROW, TILE):
        place = folder / CELLS / "obs" / name
        try:
            values = np.asarray(zarr.open_array(place, mode="r", zarr_format=3)[:])
        except DAMAGED as err:
            raise ValueError(
                f"Expected {str(place)!r} as it was written, found it damaged ({reason(err)}): "
                f"restore it, or replace slide {entry.slide_id!r} of the cohort"
            ) from err
        found.append(torch.from_numpy(values.astype(np.int64)))
    row, tile = found
    whole = torch.equal(row.sort().values, torch.arange(entry.num_cells))
    if not whole or len(tile) != len(row) or int(tile.max()) >= entry.num_tiles:
        raise ValueError(
            f"Expected {entry.num_cells} rows of cells in {str(folder)!r}, found others"
        )
    return row, tile
