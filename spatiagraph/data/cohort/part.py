"""``CohortPart``: some slides of a cohort, or some cells of them, as what a model learns from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from spatiagraph.data.cohort.layout import SlideEntry, SlideFiles, read_files
from spatiagraph.data.cohort.reading import StoredSlide, row_and_tile
from spatiagraph.data.cohort.tiles import StoredTiles, TileStore
from spatiagraph.data.recipe import Recipe
from spatiagraph.data.slide import Slide


@dataclass(frozen=True)
class CohortPart:
    """Some slides of a cohort, in place of slides in memory: ``fit`` and loaders take it.

    Attributes:
        path: Folder of the cohort.
        recipe: How slides became tiles.
        tile_size: Core cells of a tile, at most.
        num_hops: Hops over the cell graph whose cells a tile holds.
        entries: Entry of each slide in the manifest.
        stores: Where their tiles are.
        cores: For each slide the cells that count, ``[N]`` bool by their row in the slide that was
            given; all of them when ``None``. The others are context alone.
    """

    path: Path
    recipe: Recipe
    tile_size: int
    num_hops: int
    entries: tuple[SlideEntry, ...]
    stores: tuple[TileStore, ...]
    cores: tuple[Tensor, ...] | None = None

    @property
    def slide_ids(self) -> list[str]:
        """Names of the slides, in order."""
        return [entry.slide_id for entry in self.entries]

    @property
    def num_cells(self) -> int:
        """Cells of all slides together."""
        return sum(entry.num_cells for entry in self.entries)

    def tiles(self, tile_size: int, num_hops: int) -> StoredTiles:
        """Tiles of the slides, for loaders.

        Args:
            tile_size: That of the cohort.
            num_hops: Hops of the model, at most those of the cohort.

        Raises:
            ValueError: The cohort holds no tiles of that size, or with so much context.
        """
        if tile_size != self.tile_size:
            raise ValueError(
                f"Expected tile_size={self.tile_size} of the cohort {str(self.path)!r}, got "
                f"{tile_size}: leave it out, or create a cohort with tile_size={tile_size}"
            )
        self.check_hops(num_hops)
        return StoredTiles(
            self.stores,
            self.recipe,
            num_hops,
            whole=num_hops == self.num_hops,
            cores=None if self.cores is None else self._counting(self.cores),
        )

    def read(self, at: int) -> Slide:
        """A slide as it was given, without its image, in memory once something of it is needed.

        Args:
            at: Number of the slide.

        Raises:
            ValueError: The list of its files is damaged.
        """
        return StoredSlide(self.stores[at].folder, self.entries[at], self.files(at))

    def files(self, at: int) -> SlideFiles:
        """List of the files of a slide, and of the embeddings that were written to it.

        Args:
            at: Number of the slide.

        Raises:
            ValueError: The list is damaged.
        """
        return read_files(self.stores[at].folder, self.entries[at].files_hash)

    def only(self, cores: Sequence[Tensor]) -> "CohortPart":
        """The same slides, of which some of the cells that count do so.

        Args:
            cores: For each slide which of its cells, ``[N]`` bool by their row in the slide that
                was given.
        """
        if self.cores is not None:
            cores = [a & b for a, b in zip(self.cores, cores, strict=True)]
        return replace(self, cores=tuple(cores))

    def check_hops(self, num_hops: int) -> None:
        """Refuse a model that looks farther than tiles reach.

        Args:
            num_hops: Hops of the model.

        Raises:
            ValueError: They are more than those of the cohort.
        """
        if num_hops > self.num_hops:
            raise ValueError(
                f"Expected a model of at most {self.num_hops} hops over the cell graph, as the "
                f"tiles of {str(self.path)!r} hold, got one of {num_hops}: create a cohort with "
                f"num_hops={num_hops}"
            )

    def _counting(self, cores: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Cells that count, and tile of each cell, by row in the slides that were given."""
        found = []
        for store, entry, core in zip(self.stores, self.entries, cores, strict=True):
            row, tile = row_and_tile(store.folder, entry)
            of_row = tile.new_empty(len(row))
            of_row[row] = tile
            found.append((core, of_row))
        return found
