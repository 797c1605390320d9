"""An index on disk: ``index.faiss``, ``obs.parquet``, ``config.json``; nothing is pickled."""

import json
import zipfile
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pandas as pd
import pyarrow as pa

import spatiagraph
from spatiagraph._files import replaced_folder
from spatiagraph.retrieval.calibration import SlideCalibration

FORMAT = "spatiagraph.NicheIndex"
VERSION = 2
_CONFIG, _INDEX, _OBS = "config.json", "index.faiss", "obs.parquet"
_CALIBRATION = "calibration.npz"


def write_folder(
    path: Path,
    index: Any,
    obs: pd.DataFrame,
    config: dict[str, Any],
    calibration: SlideCalibration | None,
) -> None:
    """Write an index; an older one in the same place stays until the new one is complete.

    Raises:
        FileExistsError: If there is something else in that place.
        ValueError: If a column of ``obs`` holds mixed types.
    """
    if path.exists() and not _is_index(path) and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(
            f"Expected a new folder or an index to replace, {str(path)!r} holds something else"
        )
    header = {
        "format": FORMAT,
        "version": VERSION,
        "spatiagraph": spatiagraph.__version__,
        "calibrated": calibration is not None,
    }
    try:
        with replaced_folder(path) as new:
            new.mkdir()
            faiss.write_index(index, str(new / _INDEX))
            _write_obs(obs, new / _OBS)
            if calibration is not None:
                slides, mean, scale = calibration.slides, calibration.mean, calibration.scale
                np.savez(new / _CALIBRATION, slides=np.array(slides), mean=mean, scale=scale)
            (new / _CONFIG).write_text(json.dumps({**header, **config}, indent=1))
    except RuntimeError as err:  # how FAISS reports a full disk
        raise OSError(f"Could not write the index to {str(path)!r}: {err}") from err


def read_folder(
    path: Path,
) -> tuple[Any, pd.DataFrame, dict[str, Any], SlideCalibration | None]:
    """The FAISS index, the metadata, the configuration and the calibration of a saved index.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds something else, or its parts do not fit together.
    """
    if not path.exists():
        raise FileNotFoundError(f"Expected a saved index, there is no {str(path)!r}")
    if not _is_index(path):
        raise ValueError(
            f"Expected the folder of a saved index ({_CONFIG}, {_INDEX}, {_OBS}), "
            f"{str(path)!r} is not one"
        )
    config = json.loads((path / _CONFIG).read_text())
    if config["version"] != VERSION:
        raise ValueError(
            f"Expected an index of version {VERSION}, {str(path)!r} is of version "
            f"{config['version']}: build it again"
        )
    calibration = None
    try:
        index = faiss.read_index(str(path / _INDEX))
        obs = pd.read_parquet(path / _OBS)
        if config.get("calibrated", (path / _CALIBRATION).exists()):
            with np.load(path / _CALIBRATION, allow_pickle=False) as saved:
                calibration = SlideCalibration(
                    saved["slides"].tolist(), saved["mean"], saved["scale"]
                )
    except (RuntimeError, ValueError, KeyError, FileNotFoundError, zipfile.BadZipFile) as err:
        raise ValueError(f"The index in {str(path)!r} is damaged, build it again: {err}") from err
    if not index.ntotal == len(obs) == config["num_items"]:
        raise ValueError(
            f"The index in {str(path)!r} is damaged, build it again: {index.ntotal} vectors for "
            f"{len(obs)} rows"
        )
    return index, obs, config, calibration


def _is_index(path: Path) -> bool:
    try:
        config = json.loads((path / _CONFIG).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("format") == FORMAT


def _write_obs(obs: pd.DataFrame, path: Path) -> None:
    try:
        obs.to_parquet(path, index=True)  # a table of no columns would lose its rows
    except (pa.ArrowInvalid, pa.ArrowTypeError) as err:
        raise ValueError(
            f"Expected metadata columns of one type each, drop or convert: {err}"
        ) from err
