"""Morphology of generated cells against that of real cells of the target state."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import ks_2samp, pearsonr, wasserstein_distance
from torch import Tensor

ALL = "all"
"""Row of a table for all transitions together."""
_NUMBERS = ("num_images", "num_targets")


def score_morphology(
    control: Mapping[str, ArrayLike | Tensor],
    generated: Mapping[str, ArrayLike | Tensor],
    target: Mapping[str, ArrayLike | Tensor],
    *,
    beside: Mapping[str, Mapping[str, ArrayLike | Tensor]] | None = None,
    target_id: Mapping[str, Sequence[Hashable]] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Score the morphology of cells generated from controls against the real one.

    Per transition and feature, standardised over control and target cells:
    ``wasserstein_correlation`` is the Pearson correlation over (transition, feature) pairs of
    :math:`W_1(\mathrm{control}, \mathrm{generated})` with
    :math:`W_1(\mathrm{control}, \mathrm{target})`; ``ks`` is one minus the mean Kolmogorov–Smirnov
    statistic of generated against target. Both are 1 for a perfect generator. Invalid features
    (NaN) are left out, cell by cell. A transition of which fewer than two control or target cells
    could be measured has NaN, and no part in the row ``"all"``.

    Two bounds stand beside it: ``identity`` returns the control cells, ``random_target`` a random
    half of the target cells, scored against the other half. A cell that is the target of several
    controls lies in one half, once.

    Args:
        control: Transition → features of control cells, ``[N, F]``.
        generated: Transition → features of the cells made of them, ``[N', F]``.
        target: Transition → features of real target cells, ``[M, F]``.
        beside: Other generators to score: name → transition → features of the cells that it made of
            the same control cells, ``[N', F]``.
        target_id: Transition → which cell each row of ``target`` is, ``[M]``; each a cell of its
            own by default.
        seed: Of the random halves.

    Returns:
        One row per transition and ``"all"`` for each of ``generated``, ``identity``,
        ``random_target`` and those of ``beside``: ``wasserstein_correlation``, ``ks``,
        ``num_images`` and ``num_targets``, the cells they are scored against (``"all"`` counts
        those of two transitions twice). Where all rows are of one target, ``random_target`` is NaN.

    Raises:
        ValueError: If transitions, features or ids do not fit, or there is none, or a transition
            has the name ``"all"``.
    """
    names = list(control)
    beside = dict(beside or {})
    sides = [control, generated, *beside.values(), target]
    if not names or any(set(side) != set(names) for side in sides):
        raise ValueError(
            "Expected the same transitions everywhere, got "
            + " and ".join(str(sorted(side)) for side in sides)
        )
    if ALL in names:
        raise ValueError(f"Expected transitions by other names than {ALL!r}, got {names}")
    sizes = {name: np.shape(target[name])[0] for name in names}
    ids = {name: range(sizes[name]) for name in names} if target_id is None else target_id
    given = {name: len(some) for name, some in ids.items()}
    if given != sizes:
        raise ValueError(f"Expected 'target_id' of each target cell, {sizes}, got {given}")
    rng = np.random.default_rng(seed)
    rows: dict[tuple[str, str], dict[str, float]] = {}
    moved: dict[str, list[tuple[NDArray, NDArray]]] = {}
    scored: list[str] = []
    parted: list[str] = []
    for name in names:
        start, made, *others, real = _standardized(*(side[name] for side in sides))
        half, rest = halves(ids[name], rng)
        num_targets = len(set(ids[name]))
        if np.isfinite(start).any():
            scored.append(name)
            parted += [name] if len(half) else []
        for who, cells, truth, num in (
            ("generated", made, real, num_targets),
            ("identity", start, real, num_targets),
            ("random_target", real[half], real[rest], len(rest)),
            *((who, cells, real, num_targets) for who, cells in zip(beside, others, strict=True)),
        ):
            away, wanted = _distances(start, cells), _distances(start, truth)
            moved.setdefault(who, []).append((away, wanted))
            rows[who, name] = {
                "wasserstein_correlation": _correlation(away, wanted),
                "ks": _similarity(cells, truth),
                "num_images": len(cells),
                "num_targets": num,
            }
    for who, pairs in moved.items():
        away, wanted = (np.concatenate(part) for part in zip(*pairs, strict=True))
        ks = [rows[who, name]["ks"] for name in (parted if who == "random_target" else scored)]
        rows[who, ALL] = {
            "wasserstein_correlation": _correlation(away, wanted),
            "ks": float(np.mean(ks)) if ks else float("nan"),
            **{num: sum(rows[who, name][num] for name in names) for num in _NUMBERS},
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(table.index, names=["generator", "transition"])
    return table.sort_index()


def halves(
    ids: Sequence[Hashable], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of either of two random halves of the cells, each cell once; none of fewer than two.

    Args:
        ids: Which cell each row is, ``[N]``.
        rng: What halves are drawn by.
    """
    first: dict[Hashable, int] = {}
    for row, cell in enumerate(ids):
        first.setdefault(cell, row)
    rows = np.fromiter(first.values(), dtype=np.int64)
    order = rows[rng.permutation(len(rows))]
    if len(rows) < 2:
        return order[:0], order[:0]
    return order[: len(rows) // 2], order[len(rows) // 2 :]


def _standardized(*groups: ArrayLike | Tensor) -> list[NDArray[np.float64]]:
    """Features on the scale of control (first) and target (last) cells together.

    NaN where fewer than two of either have any: there is no scale then.
    """
    arrays = [np.asarray(g.cpu() if isinstance(g, Tensor) else g, np.float64) for g in groups]
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) != 1 or arrays[0].ndim != 2 or not all(map(len, arrays)):
        raise ValueError(
            "Expected features [N, F] of one or more cells, got shapes "
            f"{[list(array.shape) for array in arrays]}"
        )
    if min(np.isfinite(side).any(axis=1).sum() for side in (arrays[0], arrays[-1])) < 2:
        return [np.full_like(array, np.nan) for array in arrays]
    both = np.concatenate([arrays[0], arrays[-1]])
    mean, std = np.nanmean(both, axis=0), np.nanstd(both, axis=0)
    return [(array - mean) / np.where(std > 0, std, 1) for array in arrays]


def _columns(x: NDArray, y: NDArray) -> list[tuple[NDArray, NDArray]]:
    """Valid values of each feature on both sides."""
    pairs = zip(x.T, y.T, strict=True)
    valid = [(a[np.isfinite(a)], b[np.isfinite(b)]) for a, b in pairs]
    return [(a, b) for a, b in valid if len(a) and len(b)]


def _distances(x: NDArray, y: NDArray) -> NDArray[np.float64]:
    return np.array([wasserstein_distance(a, b) for a, b in _columns(x, y)])


def _similarity(x: NDArray, y: NDArray) -> float:
    columns = _columns(x, y)
    if not columns:
        return float("nan")
    return 1.0 - float(np.mean([ks_2samp(a, b).statistic for a, b in columns]))


def _correlation(x: NDArray, y: NDArray) -> float:
    """Pearson correlation; NaN where one side does not vary, as that of the identity."""
    if len(x) < 2 or len(x) != len(y) or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(pearsonr(x, y).statistic)
