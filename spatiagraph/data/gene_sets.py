"""Named sets of genes from GMT files, such as the hallmark sets of MSigDB."""

import os
from collections.abc import Mapping
from pathlib import Path

from spatiagraph._files import check_file
from spatiagraph._reasons import reason


def read_gmt(path: str | os.PathLike[str]) -> dict[str, tuple[str, ...]]:
    """Gene sets of a GMT file: one set a line, its name, a description and its genes between tabs.

    Args:
        path: The file.

    Returns:
        Name → genes, both in the order of the file.

    Raises:
        ValueError: If it is no GMT file, or a set comes twice; names the line.
    """
    file = Path(path)
    check_file(file, "a GMT file")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()  # Excel marks the order of bytes
    except UnicodeDecodeError as err:
        raise ValueError(f"Expected a GMT file at {file}, got {reason(err)}") from err
    sets: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, *rest = [field.strip() for field in line.split("\t")]
        genes = tuple(dict.fromkeys(gene for gene in rest[1:] if gene))
        if not name or not genes:
            raise ValueError(
                f"Expected a name, a description and genes between tabs in line {number} of "
                f"{file}, got {line[:60]!r}"
            )
        if name in sets:
            raise ValueError(f"Expected each set once in {file}, got {name!r} again in {number}")
        sets[name] = genes
    if not sets:
        raise ValueError(f"Expected gene sets in {file}, got none")
    return sets


def union_of(sets: Mapping[str, tuple[str, ...]]) -> list[str]:
    """All genes of some sets, each once, sorted by name.

    Examples:
        >>> union_of({"one": ("TP53", "AKT1"), "two": ("MYC", "TP53")})
        ['AKT1', 'MYC', 'TP53']
    """
    return sorted({gene for genes in sets.values() for gene in genes})
