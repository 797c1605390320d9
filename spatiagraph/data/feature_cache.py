"""``FeatureCache``: frozen features of slides on the disk, computed once and read from then on."""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy.sparse import csr_matrix, issparse
from torch import Tensor

from spatiagraph._files import check_output_folder, replaced_file
from spatiagraph._reasons import reason

log = logging.getLogger(__name__)

_NAME, _SUFFIX = "features", ".safetensors"


class FeatureCache:
    """Folder of features that do not change: one file for each key, ``[N, D]`` numbers in each.

    The key says what the features depend on, see :func:`cache_key`: the weights of the network
    that made them and the content that it saw. Files are written beside and renamed, so that one
    is whole or not there, and several processes may share a folder. What is read is compared with
    the hash that was written along: a damaged file is named in the log and its features are
    computed anew.

    Args:
        folder: The folder; it is made at the first write.

    Examples:
        >>> import tempfile
        >>> cache = FeatureCache(tempfile.mkdtemp())
        >>> key = cache_key("identity", np.eye(2))
        >>> cache.get(key, lambda: torch.eye(2)).shape
        torch.Size([2, 2])
        >>> bool((cache.get(key, lambda: torch.zeros(2, 2)) == torch.eye(2)).all())  # read
        True
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)

    def path(self, key: str) -> Path:
        """File of a key.

        Raises:
            ValueError: If the key is no file name of letters and digits.
        """
        if not re.fullmatch(r"[0-9A-Za-z_-]{1,128}", key, re.ASCII):
            raise ValueError(
                f"Expected a key of letters, digits, '-' and '_', such as cache_key gives, got "
                f"{key!r:.150}"
            )
        return self.folder / f"{key}{_SUFFIX}"

    def get(
        self,
        key: str,
        compute: Callable[[], Tensor | NDArray[np.floating]],
        *,
        num_rows: int | None = None,
    ) -> Tensor:
        """Features of a key, ``[N, D]``: read where they are whole, or else computed and written.

        Args:
            key: What they depend on.
            compute: Computes them.
            num_rows: Rows that they have, to be checked.

        Raises:
            ValueError: If what was computed is no matrix of finite numbers, or has other rows; or
                a folder has the name of the file.
            OSError: If the folder can neither be made nor written to, before anything is computed.
            DiskFullError: If the folder takes no more.
        """
        file = self.path(key)
        if file.is_dir():
            raise ValueError(f"Expected a file of features at {file}, found a folder: delete it")
        found = _read(file, key, num_rows) if file.is_file() else None
        if found is None:
            check_output_folder(self.folder)
            found = _checked(compute(), num_rows)
            _write(file, key, found)
        return found


def cache_key(*parts: Any) -> str:
    """Hash of everything that features depend on.

    Args:
        *parts: Texts, numbers, tensors, arrays, sparse matrices, or mappings and sequences of
            them, such as the weights of a network, the crops it sees, and its name.

    Raises:
        TypeError: If a part is anything else, whose content would not be seen.

    Examples:
        >>> cache_key("resnet18", {"w": torch.ones(2)}) == cache_key("resnet18", {"w": np.ones(2)})
        False
        >>> len(cache_key("resnet18", 100.0))
        40
    """
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        _update(digest, part)
    return digest.hexdigest()


def _update(digest: Any, part: Any) -> None:
    """Add one part and its type, so that no two parts are taken for one."""
    if isinstance(part, Mapping):
        digest.update(f"mapping {len(part)}".encode())
        for name in sorted(part):
            _update(digest, name)
            _update(digest, part[name])
    elif isinstance(part, list | tuple):
        digest.update(f"sequence {len(part)}".encode())
        for item in part:
            _update(digest, item)
    elif issparse(part):
        matrix = csr_matrix(part)
        matrix = matrix if matrix.has_sorted_indices else matrix.sorted_indices()
        _update(digest, (matrix.shape, matrix.indptr, matrix.indices, matrix.data))
    elif isinstance(part, Tensor):
        flat = part.detach().cpu().reshape(-1).clone(memory_format=torch.contiguous_format)
        digest.update(f"{part.dtype} {list(part.shape)}".encode())
        digest.update(flat.view(torch.uint8).numpy().data)
    elif isinstance(part, np.ndarray) and not part.dtype.hasobject:
        digest.update(f"{part.dtype.str} {list(part.shape)}".encode())
        digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    elif part is None or isinstance(part, bool | int | float | str):
        digest.update(f"{type(part).__name__} {len(str(part))} {part}".encode())
    else:
        raise TypeError(
            f"Expected parts of a key as texts, numbers, tensors or arrays, got "
            f"{type(part).__name__}"
        )


def _checked(values: Tensor | ArrayLike, num_rows: int | None) -> Tensor:
    found = torch.as_tensor(values).detach().cpu().contiguous()
    if found.dim() != 2 or not found.is_floating_point() or found.element_size() < 2:
        raise ValueError(f"Expected features [N, D], got {found.dtype} {list(found.shape)}")
    if num_rows is not None and len(found) != num_rows:
        raise ValueError(f"Expected {num_rows} rows of features, got {len(found)}")
    wrong = int((~found.isfinite()).any(1).sum())
    if wrong:
        raise ValueError(
            f"Expected finite features, got NaN or infinity in {wrong} of {len(found)} rows"
        )
    return found


def _write(file: Path, key: str, values: Tensor) -> None:
    notes = {"key": key, "hash": cache_key(values)}
    with replaced_file(file, shared=True) as new:
        save_file({_NAME: values}, new, metadata=notes)


def _read(file: Path, key: str, num_rows: int | None) -> Tensor | None:
    """Features of a file; ``None``, and a line in the log, if it is not what was written."""
    try:
        with safe_open(file, framework="pt") as opened:
            notes = opened.metadata() or {}
            found = _checked(opened.get_tensor(_NAME), num_rows)
        if notes.get("key") != key or notes.get("hash") != cache_key(found):
            raise ValueError("its content is not what its hash says")
    except (SafetensorError, OSError, ValueError) as err:
        log.warning("%s is damaged: computing its features anew (%s)", file, reason(err))
        return None
    return found
