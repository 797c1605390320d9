"""Folds of whole donors or whole slides."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from spatiagraph.data.slide import Slide


def split_by_donor(
    donors: Sequence[Slide] | ArrayLike, num_folds: int | None = 5, *, seed: int = 0
) -> NDArray[np.int64]:
    """Folds that keep all of a donor together.

    Args:
        donors: Slides with a ``donor``, or the donor of each slide or of each cell, ``[N]``.
        num_folds: Folds of about equal size; ``None`` holds out one donor at a time.
        seed: Which donors of equal size go together.

    Returns:
        Fold of each entry, ``[N]`` in ``[0, num_folds)``, each fold with a donor at least.

    Raises:
        ValueError: A donor is missing, or there are fewer donors than folds.

    Examples:
        >>> split_by_donor(["ann", "ann", "bob"], num_folds=2)
        array([0, 0, 1])
    """
    return _assign_groups(_names(donors, "donor"), num_folds, seed, "donor")


def split_by_slide(
    slides: Sequence[Slide] | ArrayLike, num_folds: int | None = 5, *, seed: int = 0
) -> NDArray[np.int64]:
    """Folds that keep all of a slide together; sections of one donor may fall on both sides.

    Args:
        slides: Slides, or the ``slide_id`` of each slide or of each cell, ``[N]``.
        num_folds: Folds of about equal size; ``None`` holds out one slide at a time.
        seed: Which slides of equal size go together.

    Returns:
        Fold of each entry, ``[N]`` in ``[0, num_folds)``, each fold with a slide at least.

    Raises:
        ValueError: A ``slide_id`` is missing, or there are fewer slides than folds.

    Examples:
        >>> sorted(split_by_slide(["A1", "A2", "B1"], num_folds=None).tolist())
        [0, 1, 2]
    """
    return _assign_groups(_names(slides, "slide_id"), num_folds, seed, "slide")


def _names(items: Sequence[Slide] | ArrayLike, attribute: str) -> NDArray[np.object_]:
    """Donor or id of each entry, [N]; none may be missing."""
    listed: Any = list(items) if isinstance(items, Sequence) else items
    if isinstance(listed, list) and any(isinstance(item, Slide) for item in listed):
        listed = [getattr(item, attribute, None) for item in listed]
    names = pd.Series(listed, dtype=object)
    missing = np.flatnonzero(names.isna())
    if missing.size:
        raise ValueError(
            f"Expected a {attribute} for each entry, got none for {missing.size} of {len(names)} "
            f"(first: {missing[:5].tolist()}). Pass {attribute}=… to read()"
        )
    return names.to_numpy()


def _assign_groups(
    names: NDArray[np.object_], num_folds: int | None, seed: int, what: str
) -> NDArray[np.int64]:
    """Fold of each entry: the largest groups first, each to the fold that is smallest so far."""
    code = pd.factorize(names, sort=True)[0]
    size = np.bincount(code)
    num_folds = len(size) if num_folds is None else num_folds
    if not 2 <= num_folds <= len(size):
        raise ValueError(
            f"Expected 'num_folds' between 2 and the number of {what}s, got {num_folds} for "
            f"{len(size)} {what}s"
        )
    shuffled = np.random.default_rng(seed).permutation(len(size))
    fold, load = np.empty(len(size), dtype=np.int64), np.zeros(num_folds, dtype=np.int64)
    for group in shuffled[np.argsort(-size[shuffled], kind="stable")]:
        fold[group] = load.argmin()
        load[fold[group]] += size[group]
    return fold[code]
