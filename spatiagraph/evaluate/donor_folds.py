"""Donors held out in turn, no donor and no slide on both sides."""

from collections.abc import Callable, Collection, Hashable, Iterator
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from spatiagraph.data.splits import check_no_leak

Embed: TypeAlias = Callable[[NDArray[np.bool_]], "ArrayLike | Tensor"]
"""Mask of training cells ``[N]`` → embedding of all cells ``[N, D]``, learned on these."""


def as_donors(donor: ArrayLike, num_cells: int) -> pd.Series:
    """The donor of each cell, ``[N]``.

    Args:
        donor: As given, ``[N]``.
        num_cells: Number of cells, ``N``.

    Raises:
        ValueError: Another number of entries, or a cell without a donor.
    """
    who = pd.Series(np.asarray(donor)).reset_index(drop=True)
    if len(who) != num_cells:
        raise ValueError(f"Expected 'donor' for each of {num_cells} cells, got {len(who)}")
    if who.isna().any():
        raise ValueError(f"Expected a donor for each cell, got none for {int(who.isna().sum())}")
    return who


def leave_one_out(
    donor: pd.Series, slide: ArrayLike | None, held_out: Collection[Hashable]
) -> Iterator[tuple[Hashable, NDArray[np.bool_]]]:
    """Hold out one donor after the other.

    Args:
        donor: Donor of each cell, ``[N]``.
        slide: Section of each cell, ``[N]``.
        held_out: Donors to hold out, in this order.

    Yields:
        The donor, and the mask of the cells of all other donors, ``[N]``.

    Raises:
        ValueError: A slide has two donors.
    """
    for name in held_out:
        train = (donor != name).to_numpy()
        check_no_leak(train, ~train, donor=donor, slide=slide)
        yield name, train
