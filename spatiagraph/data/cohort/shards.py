"""Work on a cohort in shards: what each process does, what it leaves, and whether all have."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from spatiagraph._json import Schema, read_json, validated
from spatiagraph.data.cohort.layout import SlideEntry, write_plain

_STATE = re.compile(r"shard-(\d+)-of-(\d+)\.json", re.ASCII)


class Shard(NamedTuple):
    """A part of some work.

    Attributes:
        number: Number of the part, from 0.
        num_shards: Number of parts.
    """

    number: int
    num_shards: int

    def __str__(self) -> str:
        return f"{self.number}/{self.num_shards}"

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.number}-of-{self.num_shards}"

    def items(self, total: int) -> range:
        """Numbers of the items of this part: every item is in one of them.

        Args:
            total: Number of items.

        Examples:
            >>> [list(Shard(i, 3).items(5)) for i in range(3)]
            [[0], [1, 2], [3, 4]]
        """
        first = total * self.number // self.num_shards
        return range(first, total * (self.number + 1) // self.num_shards)


class ShardState(Schema):
    """State that a process leaves when its part is done.

    Attributes:
        shard: Number of the part.
        num_shards: Number of parts.
        total: Number of items of all parts.
        start: Number of its first item.
        stop: Number of the first item after it.
        slides: Entry of each item, where items are slides.
    """

    shard: int = Field(ge=0)
    num_shards: int = Field(ge=1)
    total: int = Field(ge=0)
    start: int = Field(ge=0)
    stop: int = Field(ge=0)
    slides: list[SlideEntry] = []


def as_shard(given: str | Sequence[int] | Shard) -> Shard:
    """A part of some work, by its number and how many there are.

    Args:
        given: Two numbers, or text such as ``"0/3"``.

    Raises:
        ValueError: It is no such part.

    Examples:
        >>> as_shard("2/3")
        Shard(number=2, num_shards=3)
    """
    if isinstance(given, str):
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", given, re.ASCII)
        numbers = [int(number) for number in found.groups()] if found else []
    else:
        numbers = list(given)
    if len(numbers) != 2 or not all(isinstance(number, int) for number in numbers):
        raise ValueError(f"Expected a shard such as 0/3, the first of three, got {given!r}")
    number, num_shards = numbers
    if not 0 <= number < num_shards:
        raise ValueError(
            f"Expected a shard from 0/{num_shards} to {max(0, num_shards - 1)}/{num_shards}, got "
            f"{number}/{num_shards}: the first is 0"
        )
    return Shard(number, num_shards)


def is_done(folder: Path, shard: Shard) -> bool:
    """Check that a part is done.

    Args:
        folder: Where the states of all parts are.
        shard: The part.
    """
    return (folder / _state_name(shard)).is_file()


def write_state(folder: Path, shard: Shard, total: int, slides: Sequence[SlideEntry] = ()) -> None:
    """Note that a part is done.

    Args:
        folder: Where the states of all parts are.
        shard: The part.
        total: Number of items of all parts.
        slides: Entry of each of its items, where items are slides.
    """
    items = shard.items(total)
    state = ShardState(
        shard=shard.number,
        num_shards=shard.num_shards,
        total=total,
        start=items.start,
        stop=items.stop,
        slides=list(slides),
    )
    write_plain(folder / _state_name(shard), state.model_dump(mode="json"))


def read_states(folder: Path) -> list[ShardState]:
    """States of the parts that are done, by number.

    Args:
        folder: Where they are.

    Raises:
        ValueError: One is damaged.
    """
    found = []
    for path in sorted(folder.glob("shard-*.json")) if folder.is_dir() else ():
        if _STATE.fullmatch(path.name):
            found.append(validated(read_json(path), ShardState, repr(str(path))))
    return sorted(found, key=lambda state: state.shard)


def check_none_done(folder: Path, what: str) -> None:
    """Refuse to begin anew where shards of other settings are done: they would be lost.

    Args:
        folder: Where the states of all parts are.
        what: Settings that differ, for the message.

    Raises:
        ValueError: Shards are done there, or the state of one is damaged.
    """
    if done := read_states(folder):
        names = ", ".join(f"{state.shard}/{state.num_shards}" for state in done)
        raise ValueError(
            f"Expected the {what} of the shards that are done in {str(folder)!r} ({names}), got "
            "others: run this shard as those were, or delete the folder to begin anew"
        )


def check_complete(states: Sequence[ShardState], folder: Path, total: int | None = None) -> None:
    """Refuse parts that leave gaps, or overlap.

    Args:
        states: Of the parts that are done.
        folder: Where they are, for the message.
        total: Number of items, if it is known.

    Raises:
        ValueError: Parts are missing, of another division, or some item is in two of them.
    """
    where = repr(str(folder))
    if not states:
        raise ValueError(f"Expected finished shards in {where}, found none: run them first")
    divisions: dict[tuple[int, int], list[str]] = {}
    for state in states:
        names = divisions.setdefault((state.num_shards, state.total), [])
        names.append(f"{state.shard}/{state.num_shards}")
    if len(divisions) > 1:
        every = " and ".join(", ".join(names) for names in divisions.values())
        raise ValueError(
            f"Expected shards of one division of the work, found {every} in {where}: delete the "
            "state files of the others"
        )
    first = states[0]
    done = {state.shard for state in states}
    missing = [f"{i}/{first.num_shards}" for i in range(first.num_shards) if i not in done]
    if missing:
        raise ValueError(
            f"Expected all {first.num_shards} shards in {where}, found none of "
            f"{', '.join(missing[:8])}: run --shard {missing[0]}"
        )
    ranges = sorted((state.start, state.stop) for state in states)
    ends = [(0, 0), *ranges, (first.total if total is None else total,) * 2]
    for (_, stop), (start, _) in pairwise(ends):
        if stop != start:
            found = f"{start} to {stop - 1} in two of them" if stop > start else "gaps"
            raise ValueError(
                f"Expected every item in one shard of {where}, found {found}: run them again"
            )


def _state_name(shard: Shard) -> str:
    return f"shard-{shard.name}.json"
