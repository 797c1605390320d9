"""The folder of a run: whose it is, and where it stopped."""

import json
from pathlib import Path
from typing import Any

from spatiagraph._files import replaced_file
from spatiagraph.training.checkpoints import BEFORE, LAST, newest_checkpoint

RUN = "run.json"
HISTORY = "history.csv"
MODEL = "model"


def check_folder(folder: Path, record: dict[str, Any], resume: bool) -> None:
    """Refuse a folder that is none, or holds another run.

    Args:
        folder: Where the run is to be kept.
        record: Describes the run, as plain values.
        resume: Whether a run of the same record may go on.

    Raises:
        ValueError: If it is a file, or a run was found and is another or must not go on.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"Expected a folder for the run, {str(folder)!r} is a file")
    run_file = folder / RUN
    if run_file.is_file():
        if not resume:
            raise ValueError(f"Expected an empty folder, {str(folder)!r} holds a run: resume it")
        previous, description = json.loads(run_file.read_text()), json.loads(json.dumps(record))
        changed = sorted(
            k for k in {*previous, *description} if previous.get(k) != description.get(k)
        )
        if changed:
            raise ValueError(
                f"The folder {str(folder)!r} holds another run (different: {', '.join(changed)}); "
                "choose another folder, or the same arguments to resume"
            )


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
        (folder / RUN).unlink(missing_ok=True)
