"""The folder of a run: whose it is, and where it stopped."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype
from pydantic import ConfigDict

from spatiagraph._files import replaced_file
from spatiagraph._json import Schema, read_json, validated
from spatiagraph._reasons import reason
from spatiagraph.tasks.base import Watched
from spatiagraph.training.checkpoints import BEFORE, LAST, newest_checkpoint
from spatiagraph.training.start import remove_start

RUN = "run.json"
HISTORY = "history.csv"
_TOGETHER = {
    "steps": ("lr_sum",),
    "lr_sum": ("steps",),
    "moved": ("steps", "lr_sum", "cells"),
    "gates_moved": ("moved",),
    "start_val_loss": ("val_loss",),
}
"""Columns of a history that are nothing without others."""
MODEL = "model"


class WatchedScore(Schema):
    """Schema of the validation score that a run was judged by, where it is not the loss."""

    name: str
    highest: bool


class RunRecord(Schema):
    """Schema of the record of a run: its figures, and the slides it was trained on.

    Runs of other tasks keep other arguments beside these, which are shown or compared as they are.
    """

    model_config = ConfigDict(extra="allow")

    version: str | None = None
    model: str | None = None
    num_genes: int | None = None
    max_epochs: int | None = None
    seed: int | None = None
    watched: WatchedScore | None = None
    slides: dict[str, str | dict[str, str | int | float | None]] | None = None


def check_record(record: Any, where: str) -> dict[str, Any]:
    """A record of a run whose figures have the types that reports rely on.

    Args:
        record: Parsed JSON, or plain values.
        where: What to call the source in a message.

    Raises:
        ValueError: It is no object, or a value has another type; names the key.
    """
    validated(record, RunRecord, where)
    return dict(record)


def read_record(folder: Path) -> dict[str, Any]:
    """Record of a run, as its folder has it.

    Raises:
        ValueError: There is no such file, or it is damaged.
    """
    place = folder / RUN
    if not place.is_file():
        raise ValueError(f"Expected the folder of a run, found no {RUN} in {str(folder)!r}")
    return check_record(read_json(place), repr(str(place)))


def watched_of(record: Mapping[str, Any]) -> Watched:
    """Score by which a run kept its weights; the loss for records that name none.

    Args:
        record: Of the run.
    """
    score = record.get("watched")
    return Watched() if score is None else Watched(score["name"], highest=score["highest"])


def read_history(folder: Path) -> pd.DataFrame:
    """Losses of a run, one row per epoch.

    Raises:
        ValueError: There is no such file, it is no table of numbers, or no epoch is in it.
    """
    place = folder / HISTORY
    if not place.is_file():
        raise ValueError(f"Expected the folder of a run, found no {HISTORY} in {str(folder)!r}")
    try:
        table = pd.read_csv(place)
    except ValueError as err:  # no text, no table, or nothing in it
        raise ValueError(
            f"Expected a table of epochs in {str(place)!r}, got {reason(err)}"
        ) from err
    wrong = [str(name) for name, dtype in table.dtypes.items() if not is_numeric_dtype(dtype)]
    needed = ["epoch", "loss", *(n for name in table for n in _TOGETHER.get(str(name), ()))]
    wrong += [name for name in dict.fromkeys(needed) if name not in table]
    if wrong or not len(table):
        raise ValueError(
            f"Expected numbers of every epoch in {str(place)!r}, got "
            + (f"none in {', '.join(wrong)}" if wrong else "no epoch")
            + "; the same line of `fit` writes it anew"
        )
    return table


def check_folder(
    folder: Path, record: dict[str, Any], resume: bool, *, later: Collection[str] = ()
) -> None:
    """Refuse a folder that is none, or holds another run.

    Args:
        folder: Where the run is to be kept.
        record: Describes the run, as plain values.
        resume: Whether a run of the same record may go on.
        later: Entries that are not known yet.

    Raises:
        ValueError: If it is a file, or a run was found and is another or must not go on.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"Expected a folder for the run, {str(folder)!r} is a file")
    run_file = folder / RUN
    if run_file.is_file():
        if not resume:
            raise ValueError(f"Expected an empty folder, {str(folder)!r} holds a run: resume it")
        previous, description = read_record(folder), json.loads(json.dumps(record))
        changed = [
            _change(k, previous.get(k), description.get(k))
            for k in sorted({*previous, *description} - {*later})
            if previous.get(k) != description.get(k)
        ]
        if changed:
            raise ValueError(
                f"The folder {str(folder)!r} holds another run (different: {', '.join(changed)}); "
                "choose another folder, or the same arguments to resume"
            )


def _change(name: str, was: Any, now: Any) -> str:
    """Name of an entry of a record that differs, with its values unless they are hashes or long."""
    short = all(len(str(value)) < 16 for value in (was, now))
    return f"{name} {was!r} → {now!r}" if short else name


def claim(folder: Path, record: dict[str, Any]) -> Path | None:
    """Make the folder this run's own; the checkpoint to go on from, if there is one.

    Args:
        folder: Where the run is to be kept.
        record: Describes the run, as plain values.

    Raises:
        ValueError: There are checkpoints, and none of them can be used.
    """
    checkpoint = newest_checkpoint(folder, record)
    with replaced_file(folder / RUN) as new:
        new.write_text(json.dumps(record, indent=1))
    return checkpoint


def release(folder: Path) -> None:
    """Give back the folder of a run that failed before its first checkpoint: nothing is lost.

    Args:
        folder: Of the run.
    """
    if not any((folder / part).exists() for part in (LAST, BEFORE, MODEL)):
        remove_start(folder)
        (folder / RUN).unlink(missing_ok=True)
