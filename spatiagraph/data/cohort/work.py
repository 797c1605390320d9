"""Folders of work that is done in shards: one for each of its settings, so that none are mixed."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from spatiagraph._json import Schema, read_json, validated
from spatiagraph.data.cohort.layout import hash_of, write_plain
from spatiagraph.data.cohort.lock import BusyError, is_held, only_writer
from spatiagraph.data.cohort.shards import Shard, check_complete, check_none_done, read_states

Settings = TypeVar("Settings", bound=Schema)

_SETTINGS = "settings.json"


def shard_folder(out: Path) -> Path:
    """Hidden folder beside a result, where shards leave their parts of it.

    Args:
        out: File or folder that they become.
    """
    place = out.resolve()
    return place.with_name(f".{place.name}.shards")


def work_folder(place: Path, settings: Any) -> Path:
    """Folder of the work of some settings.

    Args:
        place: Where parts are kept, of any settings.
        settings: Plain values, equal where parts can stand beside each other.
    """
    return place / hash_of(settings)[:16]


def begin_work(place: Path, settings: Schema, what: str) -> Path:
    """Make the folder of some work; what is there of other settings is removed.

    Args:
        place: Where parts are kept, of any settings.
        settings: Equal where parts can stand beside each other.
        what: Settings that may differ, for the message.

    Returns:
        Folder of the parts of these settings.

    Raises:
        ValueError: Shards of other settings are done.
        BusyError: Shards of other settings run.
    """
    plain = settings.model_dump(mode="json")
    own = work_folder(place, plain)
    remove_others(own, what)
    own.mkdir(parents=True, exist_ok=True)
    if work_settings(own, type(settings)) != settings:
        write_plain(own / _SETTINGS, plain)
    return own


@contextmanager
def shards_begun(
    place: Path, settings: Schema, what: str, parts: Sequence[Shard]
) -> Iterator[Path]:
    """Begin some work and keep other processes from its parts.

    Args:
        place: As of :func:`begin_work`.
        settings: Likewise.
        what: Likewise.
        parts: Parts that this process makes.

    Yields:
        Folder of the parts of these settings.

    Raises:
        ValueError: Shards of other settings are done.
        BusyError: Shards of other settings run, or another process makes one of the parts.
    """
    with ExitStack() as held:
        with only_writer(place, wait=True):
            own = begin_work(place, settings, what)
            for part in parts:  # before others may begin
                held.enter_context(only_writer(own / part.name))
        yield own


def remove_others(own: Path, what: str) -> None:
    """Remove what was begun with other settings, unless it would be missed.

    Args:
        own: Folder of the work that is to begin; others are beside it.
        what: Settings that differ, for the message.

    Raises:
        ValueError: Shards are done there, or the state of one is damaged.
        BusyError: Shards run there.
    """
    others = [each for each in _below(own.parent) if each != own]
    for other in others:
        check_none_done(other, what)
        if is_held(other):
            raise BusyError(
                f"Expected the {what} of the shards that run now in {str(other)!r}, got others: "
                "run this shard as those were, or wait until they have ended"
            )
    for other in others:
        shutil.rmtree(other)


def remove_work(own: Path) -> None:
    """Remove the folder of some work, and what it lies in if that was all.

    Args:
        own: Folder of the parts of its settings.
    """
    shutil.rmtree(own)
    if not any(own.parent.iterdir()):
        own.parent.rmdir()


def work_settings(own: Path, kind: type[Settings]) -> Settings | None:
    """Settings of work that was begun; ``None`` if there are none that can be read.

    Args:
        own: Folder of its parts.
        kind: What they are.
    """
    file = own / _SETTINGS
    try:
        found: Settings = validated(read_json(file), kind, repr(str(file)))
    except ValueError:
        return None
    return found


def every_work(place: Path, kind: type[Settings]) -> list[Settings]:
    """Settings of all work that was begun and not ended.

    Args:
        place: Where parts are kept, of any settings.
        kind: What settings are.
    """
    found = [work_settings(own, kind) for own in _below(place)]
    return [settings for settings in found if settings is not None]


def whole_work(place: Path) -> Path:
    """Folder of work of which all shards are done.

    Args:
        place: Where parts are kept, of any settings.

    Raises:
        FileNotFoundError: Nothing was begun.
        ValueError: Shards are missing, overlap, or are of different settings.
    """
    begun = _below(place)
    if not begun:
        raise FileNotFoundError(
            f"Expected shards in {str(place)!r}, there are none: run them first"
        )
    done = {own: states for own in begun if (states := read_states(own))}
    if len(done) > 1:
        raise ValueError(
            f"Expected shards of the same settings in {str(place)!r}, found some of others in "
            f"{' and '.join(own.name for own in done)}: delete the folder of those that are not "
            "meant"
        )
    own, states = next(iter(done.items()), (begun[0], []))
    check_complete(states, own)
    return own


def _below(place: Path) -> list[Path]:
    return sorted(each for each in place.iterdir() if each.is_dir()) if place.is_dir() else []
