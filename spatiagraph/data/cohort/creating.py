"""Creation of a cohort beside its place, whole or by shards, and the move into it."""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import spatiagraph
from spatiagraph._files import flush_folder
from spatiagraph.data.cohort.layout import (
    SLIDES,
    VERSION,
    Manifest,
    SlideEntry,
    cohort_place,
    read_manifest,
    write_group,
    write_manifest,
)
from spatiagraph.data.cohort.lock import only_writer
from spatiagraph.data.cohort.shards import as_shard, read_states, write_state
from spatiagraph.data.cohort.sources import SlideSource, each_slide
from spatiagraph.data.cohort.work import remove_others, remove_work, whole_work, work_folder
from spatiagraph.data.cohort.writing import Tiling, source_hash, write_slide
from spatiagraph.data.recipe import Recipe
from spatiagraph.data.slide import Slide


def create_cohort(
    path: str | os.PathLike[str],
    slides: Iterable[SlideSource],
    tiling: Tiling,
    *,
    progress: bool = False,
) -> None:
    """Write a cohort; see :meth:`Cohort.create <spatiagraph.data.Cohort.create>`.

    Args:
        path: Folder to write.
        slides: The slides.
        tiling: How they become tiles.
        progress: Show progress bars.
    """
    place = cohort_place(path)
    with only_writer(place):
        if _is_taken(place):
            _check_same(place, slides, tiling)
            return
        staging = staging_folder(place, tiling)
        entries: list[SlideEntry] = []
        with begun(staging):
            for slide in each_slide(slides):
                check_new(slide, entries)
                entries.append(write_slide(staging / SLIDES, slide, tiling, progress=progress))
                del slide  # before the next is read
            if not entries:
                raise ValueError("Expected slides to make a cohort of, got none")
        _move_in(staging, place, manifest_of(tiling, entries))


def create_shard(
    path: str | os.PathLike[str],
    slides: Sequence[SlideSource],
    recipe: Recipe,
    *,
    shard: str | Sequence[int],
    tile_size: int = 4096,
    num_hops: int = 1,
    progress: bool = False,
) -> list[str]:
    """Write a shard of the slides of a cohort, while other processes write the remaining ones.

    :func:`merge_cohort` makes the cohort of them once all are there. A call that was interrupted or
    killed goes on where it stopped.

    Args:
        path: Folder of the cohort that is to be.
        slides: All slides of the cohort, the same in every process.
        recipe: How slides become graphs, likewise.
        shard: Part of the slides to write, such as ``"0/3"``.
        tile_size: As of :meth:`Cohort.create <spatiagraph.data.Cohort.create>`.
        num_hops: Likewise.
        progress: Show progress bars.

    Returns:
        Names of the slides that were written.

    Raises:
        FileExistsError: There is something in that place.
        ValueError: A slide does not fit the recipe, or there is no such shard.
        BusyError: Another process writes the same shard, or one of another recipe.
    """
    place, part = cohort_place(path), as_shard(shard)
    tiling = checked_tiling(recipe, tile_size, num_hops)
    entries: list[SlideEntry] = []
    with ExitStack() as held:
        with only_writer(place, wait=True):
            if _is_taken(place):
                raise FileExistsError(f"Expected a new folder, {str(place)!r} is there already")
            staging = staging_folder(place, tiling)
            held.enter_context(only_writer(staging / part.name))  # before others may begin
        for slide in each_slide(slides[item] for item in part.items(len(slides))):
            check_new(slide, entries)
            entries.append(write_slide(staging / SLIDES, slide, tiling, progress=progress))
            del slide  # before the next is read
        write_state(staging, part, len(slides), entries)
    return [entry.slide_id for entry in entries]


def merge_shards(place: Path) -> None:
    """Make a cohort of the slides that shards have written.

    Args:
        place: Folder of the cohort that is to be.

    Raises:
        FileNotFoundError: Nothing was begun.
        ValueError: Shards are missing, overlap or are of different recipes, or two slides have one
            id.
    """
    if not _staging(place).is_dir():
        raise FileNotFoundError(f"Expected a cohort at {str(place)!r}, there is nothing")
    staging = whole_work(_staging(place))
    manifest = read_manifest(staging)
    states = sorted(read_states(staging), key=lambda state: state.start)
    entries = [entry for state in states for entry in state.slides]
    ids = [entry.slide_id for entry in entries]
    if repeated := sorted({name for name in ids if ids.count(name) > 1}):
        raise ValueError(f"Expected a different slide_id for each slide, got {repeated} again")
    if not entries:
        raise ValueError("Expected slides to make a cohort of, got none")
    _move_in(staging, place, manifest.model_copy(update={"slides": entries}))


def staging_folder(place: Path, tiling: Tiling) -> Path:
    """Folder beside the cohort where slides become whole; what is of another recipe is removed.

    Args:
        place: Folder of the cohort.
        tiling: How slides become tiles.

    Raises:
        ValueError: Shards of another recipe are done.
        BusyError: Shards of another recipe run.
    """
    staging = work_folder(_staging(place), manifest_of(tiling, []).settings)
    remove_others(staging, "recipe and size of tiles")
    (staging / SLIDES).mkdir(parents=True, exist_ok=True)
    write_group(staging / SLIDES, {})
    write_manifest(staging, manifest_of(tiling, []))
    return staging


@contextmanager
def begun(staging: Path) -> Iterator[None]:
    """Keep what was begun for the next call, if it is anything.

    Args:
        staging: Folder where slides become whole.
    """
    try:
        yield
    except BaseException:  # also on Ctrl-C
        if not any((staging / SLIDES).glob("*/*")):
            remove_work(staging)
        raise


def manifest_of(tiling: Tiling, entries: list[SlideEntry]) -> Manifest:
    """Manifest of some slides.

    Args:
        tiling: How they became tiles.
        entries: The slides.
    """
    return Manifest(
        format=VERSION,
        spatiagraph=spatiagraph.__version__,
        recipe=tiling.recipe.to_dict(),
        tile_size=tiling.tile_size,
        num_hops=tiling.num_hops,
        slides=entries,
    )


def checked_tiling(recipe: Recipe, tile_size: int, num_hops: int) -> Tiling:
    """Rule by which slides become tiles.

    Raises:
        ValueError: A number is out of range.
    """
    if tile_size < 1 or num_hops < 0:
        raise ValueError(
            f"Expected 'tile_size' of at least 1 and 'num_hops' of at least 0, got {tile_size} and "
            f"{num_hops}"
        )
    return Tiling(recipe, tile_size, num_hops)


def check_new(slide: Slide, entries: Sequence[SlideEntry]) -> None:
    """Refuse a slide that is there already.

    Raises:
        ValueError: One has the same id.
    """
    if any(entry.slide_id == slide.slide_id for entry in entries):
        raise ValueError(
            f"Expected a different slide_id for each slide of a cohort, got {slide.slide_id!r} "
            "again: pass slide_id=… to read(), or change the one that is there with replace"
        )


def _staging(place: Path) -> Path:
    return place.with_name(f".{place.stem}.new{place.suffix}")


def _is_taken(place: Path) -> bool:
    return place.exists() and any(place.iterdir())


def _move_in(staging: Path, place: Path, manifest: Manifest) -> None:
    """Write the manifest, remove what is not of the cohort, and put it in its place."""
    kept = {entry.folder for entry in manifest.slides}
    for left in (staging / SLIDES).iterdir():  # of a call with other slides
        if left.is_dir() and left.name not in kept:
            shutil.rmtree(left)
    for left in staging.glob("shard-*.json"):
        left.unlink()
    write_manifest(staging, manifest)
    flush_folder(staging)
    if place.exists():
        place.rmdir()
    os.replace(staging, place)
    if not any(staging.parent.iterdir()):
        staging.parent.rmdir()


def _check_same(place: Path, slides: Iterable[SlideSource], tiling: Tiling) -> None:
    """Refuse what is there, unless it is the cohort that is to be made."""
    try:
        found = read_manifest(place)
    except ValueError as err:
        raise FileExistsError(
            f"Expected a new folder, {str(place)!r} holds something else: {err}"
        ) from err
    if found.settings != manifest_of(tiling, []).settings:
        raise FileExistsError(
            f"Expected a new folder, {str(place)!r} is a cohort of another recipe or with "
            "other tiles: delete it, or write elsewhere"
        )
    number = 0
    for number, slide in enumerate(each_slide(slides), 1):
        listed = found.slides[number - 1] if number <= len(found.slides) else None
        if listed is None or listed.source_hash != source_hash(slide):
            raise FileExistsError(
                f"Expected a new folder, {str(place)!r} is a cohort of other slides (at "
                f"{slide.slide_id!r}): add them with append, or change one with replace"
            )
    if number != len(found.slides):
        raise FileExistsError(
            f"Expected a new folder, {str(place)!r} is a cohort of {len(found.slides)} slides, not "
            f"of these {number}: delete it, or write elsewhere"
        )
