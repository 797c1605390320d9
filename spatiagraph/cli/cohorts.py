"""Cohorts on the command line: files that are read one at a time, and the store made of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from spatiagraph.cli.options import SlideOptions

if TYPE_CHECKING:
    from spatiagraph.data.recipe import Recipe
    from spatiagraph.data.slide import Slide


class SlidesOfFiles(Sequence["Slide"]):
    """Slides of files, read anew on every access: one is in memory at a time.

    Args:
        paths: The files or folders.
        options: How to read them.
    """

    def __init__(self, paths: Sequence[Path], options: SlideOptions):
        options.check(paths)
        self._each: list[tuple[Path, SlideOptions, int]] = []
        self._last: tuple[int, Slide] | None = None
        for i, path in enumerate(paths):
            own = replace(
                options,
                image=[options.image[i]] if options.image else None,
                slide_id=[options.slide_id[i]] if options.slide_id else None,
            )
            number = 1 if own.sample_key is None else len(own.read_all([path], molecules=False))
            self._each += [(path, own, section) for section in range(number)]

    def __len__(self) -> int:
        return len(self._each)

    @overload
    def __getitem__(self, index: int) -> "Slide": ...

    @overload
    def __getitem__(self, index: slice) -> "list[Slide]": ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if self._last is None or self._last[0] != index:
            self._last = None  # before the next is read
            path, options, section = self._each[index]
            self._last = (index, options.read_all([path], molecules=False)[section])
        return self._last[1]


def make_cohort(
    out: Path,
    slides: SlidesOfFiles,
    model: str | None,
    num_genes: int,
    tile_size: int | None,
    shard: str | None = None,
) -> str:
    """Write a cohort of slides for a model, or a part of one; a line that says what was written.

    Args:
        out: Folder to write.
        slides: The slides.
        model: Folder of a model or run whose recipe they are prepared by; that of a
            :class:`~spatiagraph.models.ContextModel` of their most variable genes when not given.
        num_genes: So many of them.
        tile_size: Core cells of a tile; that of the model when not given.
        shard: Part of the slides to write; all of them when not given.
    """
    from spatiagraph.cli.embed import load_model
    from spatiagraph.data.cohort import Cohort, create_shard
    from spatiagraph.models.base import SlideModel
    from spatiagraph.models.context import default_recipe

    recipe: Recipe
    size, num_hops = SlideModel.tile_size, 1
    if model is not None:
        loaded = load_model(model)
        recipe, size, num_hops = loaded.recipe, loaded.tile_size, loaded.num_hops
    else:
        recipe = default_recipe(slides, num_genes=num_genes, image="auto")
    tiles: dict[str, Any] = {
        "tile_size": size if tile_size is None else tile_size,
        "num_hops": num_hops,
        "progress": True,
    }
    if shard is None:
        return f"{Cohort.create(out, slides, recipe, **tiles)!r} written to {out}"
    written = create_shard(out, slides, recipe, shard=shard, **tiles)
    return (
        f"{len(written)} of {len(slides)} slides written; once all shards are, spatiagraph merge "
        f"{out}"
    )
