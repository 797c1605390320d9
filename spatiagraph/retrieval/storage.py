"""An index on disk: ``index.faiss``, ``obs.parquet``, ``config.json``; nothing is pickled.

Inverted lists that stay on the disk are beside them in ``lists.ivfdata``, mapped into memory.

The configuration has a hash of itself and of the other files, so that an index of which any part
was changed, or belongs to another index, is refused before the part is opened. It is no signature:
whoever writes a whole index can also write its hash.
"""

import hashlib
import json
import math
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal, NamedTuple

import faiss
import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import Field

from spatiagraph._files import replaced_folder
from spatiagraph._json import Schema, read_json, validated
from spatiagraph._reasons import reason
from spatiagraph.retrieval import backend
from spatiagraph.retrieval.calibration import SlideCalibration
from spatiagraph.retrieval.vectors import Metric

FORMAT: Literal["spatiagraph.NicheIndex"] = "spatiagraph.NicheIndex"
VERSION: Literal[3] = 3
_CONFIG, _INDEX, _OBS = "config.json", "index.faiss", "obs.parquet"
_CALIBRATION = "calibration.npz"
_UNPACKED, _RATIO = 2**26, 2_000  # bytes; nothing packs numbers tighter than a thousandfold
_AGAIN = "build it again with NicheIndex.from_slides or `spatiagraph search --save-index`"


class IndexConfig(Schema):
    """Configuration of an index, beside its vectors and metadata."""

    format: Literal["spatiagraph.NicheIndex"] = FORMAT
    version: Literal[3] = VERSION
    spatiagraph: str
    num_items: int = Field(ge=1)
    channels: int = Field(ge=1)
    kind: backend.Kind
    metric: Metric
    seed: int
    effort: int = Field(ge=0)
    min_recall: float
    recall: float = Field(ge=0, le=1)
    model: str | None
    key: str | None
    calibrated: bool


class Stored(NamedTuple):
    """The parts of an index on disk."""

    index: Any
    obs: pd.DataFrame
    config: IndexConfig
    calibration: SlideCalibration | None


def write_folder(path: Path, stored: Stored) -> None:
    """Write an index; an older one in the same folder stays until the new one is complete.

    Raises:
        FileExistsError: If there is something else in that place.
        ValueError: If a column of ``obs`` holds mixed types.
    """
    if path.exists() and not _is_index(path) and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(
            f"Expected a new folder or an index to replace, {str(path)!r} holds something else"
        )
    try:
        with replaced_folder(path) as new:
            new.mkdir()
            if (lists := backend.file_of_lists(stored.index)) is not None:
                shutil.copyfile(lists, new / backend.LISTS)
            faiss.write_index(stored.index, str(new / _INDEX))
            _write_obs(stored.obs, new / _OBS)
            if stored.calibration is not None:
                slides, mean, scale = (
                    getattr(stored.calibration, name) for name in ("slides", "mean", "scale")
                )
                np.savez(new / _CALIBRATION, slides=np.array(slides), mean=mean, scale=scale)
            config = stored.config.model_dump()
            config["hash"] = content_hash(new, stored.config)
            (new / _CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
    except RuntimeError as err:  # how FAISS reports a full disk
        raise OSError(f"Could not write the index to {str(path)!r}: {err}") from err


def read_folder(path: Path) -> Stored:
    """A saved index.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds something else, is of another version, or any part of it is not as
            it was written.
    """
    if not path.exists():
        raise FileNotFoundError(f"Expected a saved index, there is no {str(path)!r}")
    if not _is_index(path):
        raise ValueError(
            f"Expected the folder of a saved index ({_CONFIG}, {_INDEX}, {_OBS}), "
            f"{str(path)!r} is not one"
        )
    found = read_json(path / _CONFIG)
    if found.get("version") != VERSION:
        raise ValueError(
            f"Expected an index of version {VERSION}, {str(path)!r} is of version "
            f"{found.get('version')!r}, of which nobody can say whether it was changed: {_AGAIN}"
        )
    written = found.pop("hash", None)
    config: IndexConfig = validated(found, IndexConfig, repr(str(path / _CONFIG)))
    try:
        if written != content_hash(path, config):
            raise ValueError("its parts are not those that were written together")
        calibration = _read_calibration(path) if config.calibrated else None
        stored = Stored(_read_index(path), _read_obs(path), config, calibration)
        _check(stored)
    except (ValueError, OSError, pa.ArrowException) as err:
        raise ValueError(f"The index in {str(path)!r} is damaged, {_AGAIN}: {reason(err)}") from err
    return stored


def _is_index(path: Path) -> bool:
    if not (path / _CONFIG).is_file():
        return False
    try:
        config = read_json(path / _CONFIG)
    except ValueError:
        return False
    return isinstance(config, dict) and config.get("format") == FORMAT


def content_hash(path: Path, config: IndexConfig) -> str:
    """Hash of the configuration and of every file beside it."""
    digest = hashlib.sha256(json.dumps(config.model_dump(), sort_keys=True).encode())
    parts = [_INDEX, _OBS, *([_CALIBRATION] if config.calibrated else [])]
    parts += [backend.LISTS] if (path / backend.LISTS).is_file() else []
    for name in parts:
        if not (path / name).is_file():
            raise ValueError(f"there is no {name}")
        with (path / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _write_obs(obs: pd.DataFrame, path: Path) -> None:
    try:
        obs.to_parquet(path, index=True)  # a table of no columns would lose its rows
    except (pa.ArrowInvalid, pa.ArrowTypeError) as err:
        raise ValueError(
            f"Expected metadata columns of one type each, drop or convert: {reason(err)}"
        ) from err


def _read_index(path: Path) -> Any:
    stays = (path / backend.LISTS).is_file()
    flags = faiss.IO_FLAG_ONDISK_SAME_DIR | faiss.IO_FLAG_READ_ONLY if stays else 0
    try:
        return faiss.read_index(str(path / _INDEX), flags)
    except RuntimeError as err:  # what FAISS raises on anything
        raise ValueError(f"{_INDEX} cannot be read ({reason(err)})") from err


def _read_obs(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path / _OBS)
    except (LookupError, TypeError, AttributeError) as err:  # notes of pandas that fit no table
        raise ValueError(f"{_OBS} cannot be read ({reason(err)})") from err


def _read_calibration(path: Path) -> SlideCalibration:
    try:
        with zipfile.ZipFile(path / _CALIBRATION) as archive:
            slides = _array(archive, "slides", "U", 1)
            mean, scale = _array(archive, "mean", "f", 2), _array(archive, "scale", "f", 1)
    except (LookupError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as err:
        raise ValueError(f"{_CALIBRATION} cannot be read ({reason(err)})") from err
    return SlideCalibration(slides.tolist(), mean, scale)


def _array(archive: zipfile.ZipFile, name: str, kind: str, axes: int) -> np.ndarray:
    """An array of an ``.npz``, whose header is looked at before memory is taken for its values."""
    place = archive.getinfo(f"{name}.npy")
    with archive.open(place) as file:
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[np.lib.format.read_magic(file)]
        shape, _, dtype = read_header(file)
        size = math.prod(shape) * dtype.itemsize
        if dtype.kind != kind or len(shape) != axes or min(shape) < 1:
            raise ValueError(f"{name} of {_CALIBRATION} is {dtype} of shape {list(shape)}")
        if size > place.file_size or size > max(_UNPACKED, _RATIO * place.compress_size):
            raise ValueError(f"{name} of {_CALIBRATION} claims to hold {size:,} bytes")
    with archive.open(place) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _check(stored: Stored) -> None:
    """Refuse parts that cannot be of one index, whoever wrote their hash."""
    index, obs, config, calibration = stored
    if not index.ntotal == len(obs) == config.num_items:
        raise ValueError(f"{index.ntotal} vectors for {len(obs)} rows, of {config.num_items}")
    backend.check_index(index, config.kind, config.metric, config.channels)
    if calibration is not None and calibration.mean.shape[1] != config.channels:
        raise ValueError(
            f"a calibration of {calibration.mean.shape[1]} channels for {config.channels}"
        )
