"""``Cohort``: many slides on the disk, prepared once, read tile by tile."""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self, overload

from torch import Tensor

from spatiagraph._files import flush_folder
from spatiagraph._typed import typed
from spatiagraph.data.cohort.creating import (
    begun,
    check_new,
    checked_tiling,
    create_cohort,
    manifest_of,
    staging_folder,
)
from spatiagraph.data.cohort.layout import (
    CELLS,
    SLIDES,
    SlideEntry,
    SlideFiles,
    cohort_place,
    read_files,
    read_manifest,
    write_manifest,
)
from spatiagraph.data.cohort.lock import only_writer
from spatiagraph.data.cohort.part import CohortPart
from spatiagraph.data.cohort.reading import StoredSlide
from spatiagraph.data.cohort.sources import SlideSource, each_slide
from spatiagraph.data.cohort.tiles import StoredTiles, TileStore
from spatiagraph.data.cohort.verifying import damaged_files
from spatiagraph.data.cohort.work import remove_work
from spatiagraph.data.cohort.writing import Tiling, source_hash, write_slide
from spatiagraph.data.recipe import Recipe
from spatiagraph.data.slide import Slide


class Cohort(Sequence[Slide]):
    """Slides on the disk, of which one tile at a time is in memory.

    A cohort holds what a recipe makes of its slides: tiles with all the context that a model needs,
    each one read. ``fit`` and ``embed`` take it in place of slides, and give what they give for
    the slides in memory. As a sequence it reads one slide whole each time it is asked for.

    Every slide inside is an AnnData in Zarr, ``anndata.read_zarr(cohort.cells("s1"))``.

    Args:
        path: A folder that :meth:`create` wrote.

    Attributes:
        path: The folder.
        recipe: How slides became tiles.
        tile_size: Core cells of a tile, at most.
        num_hops: Hops over the cell graph whose cells a tile holds.
        entries: What the manifest says of each slide.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It is no cohort, or its manifest or that of a slide is damaged.

    Examples:
        >>> import tempfile
        >>> from spatiagraph.data import GenePanel, make_tissue
        >>> slide = make_tissue(300, num_genes=20, image=None)
        >>> place = tempfile.mkdtemp() + "/cohort.zarr"
        >>> Cohort.create(place, [slide], Recipe(GenePanel.from_slides([slide])), tile_size=256)
        Cohort(1 slide, 300 cells, 20 genes, tiles of 256 cells)
    """

    @typed
    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._manifest = read_manifest(self.path)
        self.recipe = Recipe.from_dict(self._manifest.recipe)
        for entry in self.entries:
            self._files(entry)

    @classmethod
    @typed
    def create(
        cls,
        path: str | os.PathLike[str],
        slides: Iterable[SlideSource],
        recipe: Recipe,
        *,
        tile_size: int = 4096,
        num_hops: int = 1,
        progress: bool = False,
    ) -> Self:
        """Write a cohort, one slide at a time.

        It is there once it is whole. A call that was interrupted or killed goes on where it
        stopped, with the same result; that of a cohort which is there already changes nothing.

        Args:
            path: Folder to write, which ends in ``.zarr``.
            slides: Slides, or files that :func:`spatiagraph.read` opens without arguments; an
                iterator is asked for one at a time.
            recipe: How slides become graphs: that of the model.
            tile_size: Core cells of a tile, at most, which are those of a mini-batch.
            num_hops: Hops over the cell graph of the model, or more.
            progress: Show progress bars.

        Raises:
            FileExistsError: There is something else, or a cohort of other slides or another recipe.
            ValueError: There is no slide, two share an id, or one does not fit the recipe.
            DiskFullError: The disk takes no more; the same call goes on once there is space.
            BusyError: Another process is writing to it.
        """
        tiling = checked_tiling(recipe, tile_size, num_hops)
        create_cohort(path, slides, tiling, progress=progress)
        return cls(path)

    @typed
    def append(self, slides: Iterable[SlideSource], *, progress: bool = False) -> None:
        """Add slides at the end; those that are there are not touched.

        Args:
            slides: As of :meth:`create`. Each is there once it is whole.
            progress: Show progress bars.

        Raises:
            ValueError: A slide is there already, or does not fit the recipe.
            BusyError: Another process is writing to the cohort.
        """
        with self._writing() as staging:
            for slide in each_slide(slides):
                check_new(slide, self.entries)
                entry = self._moved_in(staging, slide, progress)
                self._write([*self.entries, entry])

    @typed
    def replace(self, slide: SlideSource, *, progress: bool = False) -> None:
        """Write a slide anew in place of the one of its id; the remaining ones are not touched.

        Args:
            slide: As of :meth:`create`.
            progress: Show progress bars.

        Raises:
            ValueError: There is no slide of that id, or it does not fit the recipe.
            BusyError: Another process is writing to the cohort.
        """
        with self._writing() as staging:
            (new,) = each_slide([slide])
            at = self._at(new.slide_id)
            old = self.entries[at]
            if old.source_hash == source_hash(new):
                return
            entry = self._moved_in(staging, new, progress)
            self._write([*self.entries[:at], entry, *self.entries[at + 1 :]])
            shutil.rmtree(self.path / SLIDES / old.folder)

    @property
    def entries(self) -> list[SlideEntry]:
        """Entry of each slide in the manifest."""
        return self._manifest.slides

    @property
    def slide_ids(self) -> list[str]:
        """Names of the slides, in order."""
        return [entry.slide_id for entry in self.entries]

    @property
    def num_cells(self) -> int:
        """Cells of all slides together."""
        return sum(entry.num_cells for entry in self.entries)

    @property
    def tile_size(self) -> int:
        """Core cells of a tile, at most."""
        return self._manifest.tile_size

    @property
    def num_hops(self) -> int:
        """Hops over the cell graph whose cells a tile holds."""
        return self._manifest.num_hops

    def folder(self, slide: str | int) -> Path:
        """Folder of a slide.

        Args:
            slide: Name or number of the slide.
        """
        return self.path / SLIDES / self.entries[self._at(slide)].folder

    def cells(self, slide: str | int) -> Path:
        """AnnData of a slide in Zarr, whose cells are in the order of the store.

        Args:
            slide: Name or number of the slide.
        """
        return self.folder(slide) / CELLS

    def store(self, slide: str | int) -> TileStore:
        """Store of the tiles of a slide.

        Args:
            slide: Name or number of the slide.
        """
        entry = self.entries[self._at(slide)]
        return TileStore(self.folder(slide), entry.slide_id, entry.source_hash, entry.num_tiles)

    def tiles(self, tile_size: int, num_hops: int) -> StoredTiles:
        """Tiles of all slides, see :meth:`CohortPart.tiles`.

        Args:
            tile_size: That of the cohort.
            num_hops: Hops of the model, at most those of the cohort.

        Raises:
            ValueError: The cohort holds no tiles of that size, or with so much context.
        """
        return self.part().tiles(tile_size, num_hops)

    def part(
        self, slides: Sequence[str | int] | None = None, *, cores: Sequence[Tensor] | None = None
    ) -> CohortPart:
        """Some of the slides, or some of the cells of them, to train or validate on.

        Args:
            slides: Names or numbers of slides; all of them when not given.
            cores: For each of these the cells that count, ``[N]`` bool by their row in the slide
                that was given.

        Raises:
            ValueError: There is no such slide, or there is not one mask for each.
        """
        chosen = list(range(len(self))) if slides is None else [self._at(s) for s in slides]
        entries = tuple(self.entries[at] for at in chosen)
        if cores is not None and [len(core) for core in cores] != [e.num_cells for e in entries]:
            raise ValueError(
                f"Expected a mask of the cells of each of {len(entries)} slides, got masks of "
                f"{[len(core) for core in cores]} for {[e.num_cells for e in entries]} cells"
            )
        return CohortPart(
            self.path,
            self.recipe,
            self.tile_size,
            self.num_hops,
            entries,
            tuple(self.store(at) for at in chosen),
            None if cores is None else tuple(cores),
        )

    def files(self, slide: str | int) -> SlideFiles:
        """List of the files of a slide, and of the embeddings that were written to it.

        Args:
            slide: Name or number of the slide.

        Raises:
            ValueError: The list is damaged.
        """
        return self._files(self.entries[self._at(slide)])

    def damaged(self) -> list[str]:
        """Files that are missing or not as they were written, all of them read; best none.

        Raises:
            ValueError: The list of the files of a slide is damaged.
        """
        return [
            str(path)
            for at in range(len(self))
            for path in damaged_files(self.folder(at), self.files(at))
        ]

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int | str) -> Slide: ...

    @overload
    def __getitem__(self, index: slice) -> list[Slide]: ...

    def __getitem__(self, index: int | str | slice) -> Slide | list[Slide]:
        """A slide as it was given, without its image, in memory once something of it is needed.

        Raises:
            ValueError: There is no such slide, or the list of its files is damaged.
        """
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = self._at(index)
        return StoredSlide(self.folder(at), self.entries[at], self.files(at))

    def __iter__(self) -> Iterator[Slide]:
        for at in range(len(self)):
            yield self[at]

    def __repr__(self) -> str:
        number = len(self)
        return (
            f"Cohort({number} slide{'' if number == 1 else 's'}, {self.num_cells:,} cells, "
            f"{len(self.recipe.panel):,} genes, tiles of {self.tile_size:,} cells)"
        )

    def _at(self, slide: str | int) -> int:
        """Number of a slide."""
        if isinstance(slide, str):
            if slide not in self.slide_ids:
                names = ", ".join(map(repr, self.slide_ids[:12]))
                raise ValueError(f"Expected a slide of the cohort, {names}, got {slide!r}")
            return self.slide_ids.index(slide)
        at = slide + len(self) if slide < 0 else slide
        if not 0 <= at < len(self):
            raise IndexError(f"Expected a slide from 0 to {len(self) - 1}, got {slide}")
        return at

    def _files(self, entry: SlideEntry) -> SlideFiles:
        return read_files(self.path / SLIDES / entry.folder, entry.files_hash)

    @property
    def _tiling(self) -> Tiling:
        return Tiling(self.recipe, self.tile_size, self.num_hops)

    @contextmanager
    def _writing(self) -> Iterator[Path]:
        """Staging folder beside the cohort, which nobody else writes to now."""
        place = cohort_place(self.path)
        with only_writer(place):
            self._manifest = read_manifest(self.path)  # others may have written since
            staging = staging_folder(place, self._tiling)
            with begun(staging):
                yield staging
            remove_work(staging)

    def _moved_in(self, staging: Path, slide: Slide, progress: bool) -> SlideEntry:
        entry = write_slide(staging / SLIDES, slide, self._tiling, progress=progress)
        target = self.path / SLIDES / entry.folder
        if target.exists():  # moved by a call that was killed before the manifest was written
            shutil.rmtree(target)
        flush_folder(staging / SLIDES / entry.folder)
        os.replace(staging / SLIDES / entry.folder, target)
        return entry

    def _write(self, entries: list[SlideEntry]) -> None:
        manifest = manifest_of(self._tiling, entries)
        write_manifest(self.path, manifest)
        self._manifest = manifest
