"""Checkpoints of a run: whole or not there, the one before kept, and checked before one is used."""

import json
import logging
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import TorchCheckpointIO

from spatiagraph._files import replaced_file
from spatiagraph._reasons import reason

logger = logging.getLogger(__name__)

LAST = Path("checkpoints") / "last.ckpt"
BEFORE = Path("checkpoints") / "before.ckpt"

_PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "loops")
_RECORD = "spatiagraph_run"
# torch names no class for bytes that are no checkpoint: its unpickler fails where they lead it
_UNREADABLE = (
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    struct.error,
    OSError,
    EOFError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
)


class CheckpointFiles(TorchCheckpointIO):
    """Writer of checkpoints that a killed process or a full disk cannot cut.

    A checkpoint is written beside the last one, flushed to the disk and renamed; the last one stays
    under another name. All of it is in the folder of the run, whatever file system that is on.

    Args:
        record: Describes the run, and is kept in its checkpoints.
    """

    def __init__(self, record: dict[str, Any]):
        self.record = record

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint and keep the one before."""
        last = Path(path)
        with replaced_file(last) as new:
            torch.save({**checkpoint, _RECORD: _as_text(self.record)}, new)
            if last.is_file():
                os.replace(last, last.with_name(BEFORE.name))


def newest_checkpoint(folder: Path, record: dict[str, Any]) -> Path | None:
    """The checkpoint to go on from: the last one, or the one before if that does not open.

    Args:
        folder: Of the run.
        record: Describes the run.

    Returns:
        Its path; ``None`` where there is none.

    Raises:
        ValueError: There are checkpoints, and none of them can be used.
    """
    damaged: list[str] = []
    for path in (folder / LAST, folder / BEFORE):
        if path.is_dir():  # sharded, as FSDP writes it
            return path
        if not path.is_file():
            continue
        try:
            _check(path, record)
        except ValueError as err:
            damaged.append(str(err))
            continue
        if damaged:
            logger.warning("%s; going on from the one before, %s", damaged[0], path)
        return path
    if damaged:
        raise ValueError(
            f"{'; '.join(damaged)}. Delete {folder / LAST.parent} to train from the start, or put "
            "back a copy"
        )
    return None


def _check(path: Path, record: dict[str, Any]) -> None:
    """Refuse a checkpoint that is cut, damaged or of another run; nothing of it is executed."""
    try:
        with zipfile.ZipFile(path) as archive:
            cut = archive.testzip()  # torch does not look at the checksums
        saved: Any = None if cut else torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as err:
        raise ValueError(f"The checkpoint {path} does not open ({reason(err)})") from err
    missing = [part for part in _PARTS if not isinstance(saved, dict) or part not in saved]
    if cut or missing:
        what = f"{cut} is damaged" if cut else f"no {', '.join(missing)}"
        raise ValueError(f"The checkpoint {path} does not open ({what})")
    if saved.get(_RECORD, _as_text(record)) != _as_text(record):
        raise ValueError(f"The checkpoint {path} is of another run")


def _as_text(record: dict[str, Any]) -> str:
    return json.dumps(record, sort_keys=True)
