"""Output of commands: lines, tables, and no chatter of libraries."""

import logging
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from spatiagraph._files import check_output_folder


def print_table(frame: pd.DataFrame, title: str = "") -> None:
    """Print a data frame, its index first."""
    if title:
        say(title)
    table = Table(box=None, pad_edge=False)
    table.add_column(str(frame.index.name or ""))
    for name, dtype in frame.dtypes.items():
        number = pd.api.types.is_numeric_dtype(dtype)
        table.add_column(str(name), justify="right" if number else "left")
    for name, row in zip(frame.index, frame.itertuples(index=False), strict=True):
        table.add_row(str(name), *(_text(value) for value in row))
    Console().print(table)


def _text(value: object) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:.3f}"
    return str(value)


def say(text: str) -> None:
    """Print a line."""
    typer.echo(text)


def say_unlabelled(obs: pd.DataFrame, column: str | None, known: pd.Series | None) -> None:
    """Print how many cells are left out because of the name of their label.

    Args:
        obs: Columns of the cells.
        column: That of the labels; ``None`` for none.
        known: Label of each cell, missing where it is none, ``[N]``.
    """
    if column is None or known is None:
        return
    left = known.isna().to_numpy() & obs[column].notna().to_numpy()
    if left.any():
        names = ", ".join(sorted(set(map(str, obs[column][left])))[:5])
        say(
            f"{left.sum():,} of {len(left):,} cells have no label in obs[{column!r}] ({names}): "
            "--unlabelled names what means none"
        )


def quiet_libraries() -> None:
    """Lightning's remarks on devices and loggers help nobody here."""
    import lightning.pytorch  # noqa: F401  (sets its level when first imported)

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def check_output_file(path: Path, suffix: str) -> None:
    """Refuse an output before the work, not after it.

    Raises:
        ValueError: It is a folder, or has another suffix.
        OSError: Its folder cannot be made or written to; nothing is made yet.
    """
    if path.suffix.lower() != suffix:
        raise ValueError(f"Expected an output file that ends in {suffix}, got {path.name}")
    if path.is_dir():
        raise ValueError(f"Expected an output file, {path} is a folder")
    check_output_folder(path.parent)


def file_names(names: Sequence[str]) -> list[str]:
    """Names of slides and transitions as parts of the names of files.

    Raises:
        ValueError: Two would be the same.
    """
    safe = [re.sub(r"[^\w+-]", "_", name) for name in names]
    for text, number in Counter(safe).items():
        if number > 1:
            same = [name for name, its in zip(names, safe, strict=True) if its == text]
            raise ValueError(f"Expected names that differ as names of files, got {same}")
    return safe


def check_accelerator(name: str) -> None:
    """Refuse an accelerator that this machine does not have, before the work.

    Raises:
        ValueError: There is no such accelerator.
    """
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch import Trainer

    try:
        with warnings.catch_warnings(action="ignore"):  # said again when training begins
            Trainer(accelerator=name, logger=False, enable_checkpointing=False)
    except (ValueError, MisconfigurationException) as err:
        raise ValueError(f"Expected an accelerator of this machine, got {name!r}: {err}") from err
