"""``GeneTable``: a vector for each gene, by name, on disk as NumPy has it."""

import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from spatiagraph._files import check_file, replaced_file
from spatiagraph._reasons import reason

# what NumPy and zipfile raise on bytes that are no table
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, ValueError, LookupError, TypeError, RuntimeError, OSError,
    EOFError, MemoryError,
)  # fmt: skip


@dataclass(frozen=True)
class GeneTable:
    """A vector for each of some genes.

    Attributes:
        symbols: Names of the genes, ``[G]``.
        values: ``[G, E]`` float32; a row of zeros is a gene that nothing is known of.

    Raises:
        ValueError: If there is not one finite row for each name, or a name occurs twice.
    """

    symbols: tuple[str, ...]
    values: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "symbols", tuple(str(s) for s in self.symbols))
        if self.values.dim() != 2 or len(self.values) != len(self.symbols):
            raise ValueError(
                f"Expected a row for each of {len(self.symbols)} genes, got "
                f"{list(self.values.shape)}"
            )
        if len(set(self.symbols)) < len(self.symbols):
            raise ValueError("Expected every gene once, got names that repeat")
        if not bool(self.values.isfinite().all()):
            raise ValueError("Expected finite vectors of genes, got others")

    def rows(self, symbols: Sequence[str]) -> Tensor:
        """Vectors of some genes in order, ``[n, E]``; zeros for a gene that is not in the table.

        Args:
            symbols: Names.

        Raises:
            ValueError: If none is in the table.
        """
        place = {name: i for i, name in enumerate(self.symbols)}
        index = torch.tensor([place.get(name, -1) for name in symbols], dtype=torch.long)
        if not bool((index >= 0).any()):
            raise ValueError(
                f"Expected genes of the table ({', '.join(self.symbols[:3])}, …), got none among "
                f"{len(symbols)} such as {', '.join(symbols[:3])}"
            )
        found = self.values[index.clamp(min=0)].clone()
        return found.masked_fill((index < 0)[:, None], 0.0)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write ``symbols`` and ``values`` to an ``.npz`` file.

        Args:
            path: The file.

        Raises:
            ValueError: If it has another suffix.
        """
        path = Path(path)
        if path.suffix.lower() != ".npz":
            raise ValueError(f"Expected a file that ends in .npz, got {path.name}")
        with replaced_file(path) as new:
            np.savez(new, symbols=np.array(self.symbols), values=self.values.numpy())
        return path

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Read what :meth:`save` wrote; nothing in the file is run.

        Args:
            path: The file.

        Raises:
            ValueError: If it is no such file.
        """
        check_file(Path(path), "a table of genes (.npz)")
        try:
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                symbols, values = file["symbols"], file["values"]
            if symbols.dtype.kind != "U" or symbols.ndim != 1 or values.dtype.kind != "f":
                raise ValueError(
                    f"symbols are {symbols.dtype} {list(symbols.shape)} and values {values.dtype}"
                )
            return cls(tuple(symbols.tolist()), torch.from_numpy(values.astype(np.float32)))
        except _DAMAGED as err:
            raise ValueError(
                f"Expected a table of genes in {path}, got another or a damaged file "
                f"({reason(err)}): copy it again"
            ) from err
