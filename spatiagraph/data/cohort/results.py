"""Embeddings of a cohort: written tile by tile beside it, moved in slide by slide."""

import glob
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from spatiagraph._files import flush_folder, full_disk_named, replaced_file
from spatiagraph._json import Schema
from spatiagraph.data.cohort.cohort import Cohort
from spatiagraph.data.cohort.layout import (
    CELLS,
    Results,
    SlideFiles,
    chunked,
    file_hash,
    files_below,
    write_files,
)
from spatiagraph.data.cohort.reading import row_and_tile
from spatiagraph.data.cohort.work import begin_work, every_work, remove_work, work_folder
from spatiagraph.keys import embedding_key

_ROW, _VALUES = "row", "values/"
_SUFFIX = ".safetensors"


class ResultSettings(Schema):
    """Settings of the embeddings of a cohort: equal where tiles can stand beside each other.

    Attributes:
        name: Short name of the model.
        levels: Names of the levels above cells.
        records: Record of the embedding of each slide, which names weights and content.
        folders: Folder of each slide.
    """

    name: str
    levels: list[str]
    records: list[dict[str, Any]]
    folders: list[str]


class TileResults:
    """Values of the core cells of tiles, in a hidden folder beside a cohort until all are there.

    Args:
        cohort: The cohort.
        settings: What they are: values of other settings lie elsewhere.
    """

    def __init__(self, cohort: Cohort, settings: ResultSettings):
        self.cohort = cohort
        self.settings = settings
        self.folder = work_folder(_place(cohort, settings.name), settings.model_dump(mode="json"))

    def begin(self) -> None:
        """Make the folder; values of other settings are removed.

        Raises:
            ValueError: Shards of other settings are done.
            BusyError: Shards of other settings run.
        """
        begin_work(self.folder.parent, self.settings, "weights")

    def has(self, slide: int, tile: int) -> bool:
        """Check that the values of a tile are there."""
        return self._file(slide, tile).is_file()

    def write(self, slide: int, tile: int, rows: Tensor, values: Mapping[str, Tensor]) -> None:
        """Write the values of a tile; they are there once they are whole.

        Args:
            slide: Number of the slide.
            tile: Number of the tile.
            rows: Rows of its core cells in the slide that was given, ``[C]``.
            values: Level → ``[C, D]``.

        Raises:
            DiskFullError: The disk takes no more.
        """
        arrays = {f"{_VALUES}{level}": value.float().cpu() for level, value in values.items()}
        with replaced_file(self._file(slide, tile)) as new:
            save_file({_ROW: rows, **{k: v.contiguous() for k, v in arrays.items()}}, new)

    def is_finished(self, slide: int) -> bool:
        """Check that a slide has these embeddings already.

        Args:
            slide: Number of the slide.
        """
        folder = self.cohort.folder(slide)
        for result in self.cohort.files(slide).results:
            if (result.name, result.record) == (self.settings.name, self.settings.records[slide]):
                return all(
                    (folder / name).is_file() and (folder / name).stat().st_size == size
                    for name, (size, _) in result.files.items()
                )
        return False

    def finish(self, slide: int) -> None:
        """Move the embeddings of a slide into its AnnData, once those of all tiles are there.

        Args:
            slide: Number of the slide.

        Raises:
            ValueError: Tiles are missing, or some cell is in none or two of them.
        """
        name = self.settings.name
        entry, folder = self.cohort.entries[slide], self.cohort.folder(slide)
        missing = [n for n in range(entry.num_tiles) if not self.has(slide, n)]
        if missing:
            raise ValueError(
                f"Expected embeddings of all {entry.num_tiles} tiles of slide {entry.slide_id!r}, "
                f"got none of {len(missing)} (first: {missing[:5]}): embed these shards as well"
            )
        gathered = self._gathered(slide)
        new = self.folder / "obsm"
        if new.exists():
            shutil.rmtree(new)
        with full_disk_named(folder):
            _write_slots(new, {embedding_key(name, k): v for k, v in gathered.items()})
            flush_folder(new)
        slots: list[str] = []
        files: dict[str, tuple[int, str]] = {}
        for level in gathered:
            slot = embedding_key(name, level)
            target = folder / CELLS / "obsm" / slot
            if target.exists():
                shutil.rmtree(target)
            os.replace(new / slot, target)
            slots.append(slot)
            files |= {
                path.relative_to(folder).as_posix(): file_hash(path)
                for path in (*files_below(target), target / "zarr.json")
            }
        listed = self.cohort.files(slide)
        others = [result for result in listed.results if result.name != name]
        own = Results(
            name=name,
            levels=self.settings.levels,
            slots=slots,
            record=self.settings.records[slide],
            files=files,
        )
        write_files(folder, SlideFiles(files=listed.files, results=[*others, own]))

    def remove(self) -> None:
        """Remove the folder, once all slides are finished."""
        remove_work(self.folder)

    def _file(self, slide: int, tile: int) -> Path:
        return self.folder / self.cohort.entries[slide].folder / f"{tile}{_SUFFIX}"

    def _gathered(self, slide: int) -> dict[str, NDArray[np.float32]]:
        """Values of all cells in the order of the store: level → ``[N, D]``."""
        entry = self.cohort.entries[slide]
        row, _ = row_and_tile(self.cohort.folder(slide), entry)
        place = torch.empty_like(row)
        place[row] = torch.arange(len(row))
        found: dict[str, NDArray[np.float32]] = {}
        seen = torch.zeros(entry.num_cells, dtype=torch.int32)
        for number in range(entry.num_tiles):
            file = self._file(slide, number)
            try:
                arrays = load_file(file)
            except (SafetensorError, OSError) as err:
                raise ValueError(
                    f"Expected embeddings in {str(file)!r}, found none: delete it and embed again"
                ) from err
            at = place[arrays.pop(_ROW)]
            seen[at] += 1
            for key, value in arrays.items():
                level = key.removeprefix(_VALUES)
                if level not in found:
                    found[level] = np.empty((entry.num_cells, value.size(1)), dtype=np.float32)
                found[level][at.numpy()] = value.numpy()
        if not bool((seen == 1).all()):
            raise ValueError(
                f"Expected every cell of slide {entry.slide_id!r} in one tile, got "
                f"{int((seen != 1).sum())} in none or several: delete {str(self.folder)!r} and "
                "embed again"
            )
        return found


def begun_results(cohort: Cohort) -> list[TileResults]:
    """Embeddings that were begun and not moved in yet, of any model.

    Args:
        cohort: The cohort.
    """
    place = cohort.path.resolve()
    folders = [entry.folder for entry in cohort.entries]
    return [
        TileResults(cohort, settings)
        for every in sorted(place.parent.glob(f".{glob.escape(place.stem)}.*.new"))
        for settings in every_work(every, ResultSettings)
        if settings.folders == folders
    ]


def _place(cohort: Cohort, name: str) -> Path:
    place = cohort.path.resolve()
    return place.with_name(f".{place.stem}.{name}.new")


def _write_slots(place: Path, slots: Mapping[str, NDArray[np.float32]]) -> None:
    import zarr

    group = zarr.open_group(place, mode="w", zarr_format=3)
    for slot, values in slots.items():
        anndata.io.write_elem(group, slot, values, dataset_kwargs=chunked(values))
