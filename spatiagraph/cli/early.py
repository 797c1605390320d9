"""Checks of paths, columns and models before anything heavy is imported or read."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path

from spatiagraph._shipped import shipped_models
from spatiagraph._walk import check_hdf5
from spatiagraph.data.places import check_place

_SHOWN = 8  # columns that are named where none is alike


def check_slide_file(path: Path, columns: Mapping[str, str | None]) -> None:
    """Refuse a path that is no slide, or an ``.h5ad`` file without a column.

    Args:
        path: The file or folder.
        columns: Option → column of ``obs`` that it names, or ``None``.

    Raises:
        ValueError: There is no such column; suggests the nearest.
        OSError: There is no such file, or it cannot be read.
    """
    check_place(path)
    wanted = {option: column for option, column in columns.items() if column is not None}
    if not wanted or path.suffix.lower() != ".h5ad":
        return
    known = _obs_columns(path)
    for option, column in wanted.items():
        if known is not None and column not in known:
            near = difflib.get_close_matches(column, known, n=3, cutoff=0.5)
            there = f"Nearest: {', '.join(map(repr, near))}" if near else f"There are {_few(known)}"
            raise ValueError(
                f"Expected a column of obs of {path.name} for {option}, got {column!r}. {there}"
            )


def check_run_folder(folder: Path) -> None:
    """Refuse a folder that holds no run.

    Raises:
        ValueError: There is no record of a run in it.
    """
    if not (folder / "run.json").is_file():
        raise ValueError(f"Expected the folder of a run, found no run.json in {str(folder)!r}")


def check_model(folder_or_hub_id: str) -> None:
    """Refuse what is no folder of a model or of a run, no model of the package, no id of the Hub.

    Raises:
        ValueError: There is no model.
    """
    folder = Path(folder_or_hub_id)
    if folder.is_dir():
        if not any((inside / "config.json").is_file() for inside in (folder, folder / "model")):
            raise ValueError(
                f"Expected the folder of a saved model, found no config.json in {str(folder)!r}"
            )
    elif folder_or_hub_id in shipped_models():
        return
    elif not re.fullmatch(r"(hf://)?[\w-][\w.-]*/[\w-][\w.-]*", folder_or_hub_id, re.ASCII):
        raise ValueError(
            f"Expected the folder of a saved model, found none at {folder_or_hub_id!r}; an id of "
            f'the hub is "owner/name"; with the package come {", ".join(shipped_models())}'
        )


def check_start(folder: str) -> None:
    """Refuse what is no folder of a run that has kept its model as it was before training.

    Raises:
        ValueError: There is no such model.
    """
    if not (Path(folder) / "start" / "config.json").is_file():
        raise ValueError(
            f"Expected the folder of a run that has kept its model before training, found no start "
            f"in {folder!r}: train again with this version, runs of older ones have none"
        )


def _obs_columns(path: Path) -> list[str] | None:
    """Names of the columns of ``obs``; ``None`` where a reader is to say what is wrong."""
    import h5py

    if not path.is_file():  # a pipe would be waited for
        return None
    check_hdf5(path)
    try:
        with h5py.File(path) as file:
            obs = file.get("obs")
            if not isinstance(obs, h5py.Group):
                return None  # of an old version, or none
            return [str(name) for name in obs if name != "_index"]
    except (OSError, RuntimeError, KeyError):
        return None


def _few(names: list[str]) -> str:
    shown = [name for name in names if not name.startswith("__")]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more if shown else "none"
