"""Weights of a file, whether they are those of a model, and short hashes of them."""

import hashlib
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from spatiagraph._reasons import reason

MAX_MODULES = 100_000
"""Most modules of a model that is read from a file."""
HASH_LENGTH = 16
"""Digits of a hash."""


def weights_hash(model: nn.Module) -> str:
    """Short hash of all weights: embeddings can be compared if those of their models are equal."""
    return tensors_hash(model.state_dict())


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """Short hash of tensors and their names, in whatever order they come."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        flat = value.detach().cpu().reshape(-1)
        # a single value may have a stride of 0, which contiguous() leaves alone and view() refuses
        flat = flat.clone(memory_format=torch.contiguous_format)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:HASH_LENGTH]


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Tensors of a safetensors file.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        return load_file(path)
    except SafetensorError as err:
        raise ValueError(
            f"Expected weights in {str(path)!r}; unreadable: {reason(err)}. Is the file complete?"
        ) from err


def check_weights(tensors: Mapping[str, Tensor], model: nn.Module, path: Path) -> None:
    """Check that tensors are the weights of a model: names, shapes, kinds and finite values.

    Args:
        tensors: The tensors by name.
        model: The model, which may be on the ``meta`` device.
        path: The file they are from.

    Raises:
        ValueError: With the first that differs.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in tensors]
    stray = [name for name in tensors if name not in own]
    if missing or stray:
        differences = [
            f"{word} {len(names)} (first: {names[0]!r})"
            for word, names in (("lacks", missing), ("has beside them", stray))
            if names
        ]
        raise ValueError(
            f"The weights in {str(path)!r} are of another model: of {len(own)} tensors the file "
            f"{' and '.join(differences)}"
        )
    for name, value in own.items():
        found = tensors[name]
        exact = torch.promote_types(found.dtype, value.dtype) == value.dtype
        if found.shape != value.shape or not exact:
            raise ValueError(
                f"The weights in {str(path)!r} are of another model: expected {name!r} as "
                f"{_kind(value)}, got {_kind(found)}"
            )
    for name, found in tensors.items():
        if found.is_floating_point() and (bad := int((~found.isfinite()).sum())):
            raise ValueError(
                f"Expected finite weights in {str(path)!r}, got {bad} NaN or infinite values among "
                f"the {found.numel()} of {name!r}: train the model again, or ask for another copy"
            )


@contextmanager
def no_more_than(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Refuse a model that, while it is built, outgrows the weights it is to get.

    Sizes in a configuration may be wrong or made to fill the memory; the weights are there.

    Args:
        tensors: The weights.

    Raises:
        ValueError: As soon as the modules have many more tensors, or values in them.
    """
    thread = threading.get_ident()
    most_values = 4 * sum(value.numel() for value in tensors.values()) + 2**22
    most_tensors = 4 * len(tensors) + 2**12
    values = count = modules = 0

    def refuse_more() -> None:
        if values > most_values or count > most_tensors or modules > MAX_MODULES:
            raise ValueError(
                f"Expected a model of the size of its weights, which are {len(tensors)} tensors: "
                "the sizes in the configuration are of another one"
            )

    def see_tensor(module: nn.Module, name: str, value: Tensor | None) -> None:
        nonlocal values, count
        if value is not None and threading.get_ident() == thread:
            values, count = values + value.numel(), count + 1
            refuse_more()

    def see_module(module: nn.Module, name: str, child: nn.Module | None) -> None:
        nonlocal modules
        if threading.get_ident() == thread:
            modules += 1
            refuse_more()

    handles = [
        hooks.register_module_parameter_registration_hook(see_tensor),
        hooks.register_module_buffer_registration_hook(see_tensor),
        hooks.register_module_module_registration_hook(see_module),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _kind(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
