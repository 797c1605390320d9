"""Sections of tissue that were put into one table: named by a column, or seen by how they lie."""

import re
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from spatiagraph.data.units import lattice

_NAME = re.compile(
    r"^(library|sample|section|slice|slide|batch|fov|donor|patient|mouse|animal|subject|individual"
    r"|replicate|rep|image|core|tma|tma[ _.]?core|roi|puck|specimen|bregma|point|capture[ _.]?area"
    r"|orig[ _.]?ident)([ _.]?(id|ids|name|names|number|no|num|nr|index|key))?$",
    re.IGNORECASE,
)
_LIKE_A_NAME = re.compile(
    r"(^|[ _.])(library|sample|section|slice|slide|batch|puck|specimen|dataset|data[ _.]?set"
    r"|experiment|well|chip|cohort|study|treatment|genotype|strain|time[ _.]?point|age|sex)"
    r"([ _.]?(id|ids|name|names|label|number|no|num|nr|index|key))?$",
    re.IGNORECASE,
)
_NEIGHBORS = 16
_SAMPLED = 20_000  # cells that are looked at
_GAP = np.deg2rad(170)  # a straight border leaves half a circle without cells of the other side
_FEW = 20  # cells, whose neighbours are on all sides of each section by chance
_MIXED = 0.05  # share of the cells of a section among those of another
_ALL_MIXED = 0.5  # mean share over sections; areas of one section meet at their borders alone
_CLOSEST = 0.2  # share of the cells, those with the closest neighbours
_AVOID = 0.6  # of its usual share, the share of a label among the closest neighbours of its cells
_OWN = 0.35  # share of own neighbours of a cell, where many sections lie over each other
_SPOTS = 3_000  # spots in which lattices are looked for
_LATTICES = 8  # that are looked for
_FEWEST = 9  # spots of a lattice
_OFF = 0.1  # pitches by which a spot may lie off its lattice
_STAR = 0.1  # pitches by which the neighbours of one spot may lie off a regular star
_WHOLE = 0.7  # share of the bonds of a spot that lead to another; tissue has few


def section_columns(obs: pd.DataFrame) -> list[str]:
    """Columns that are called like sections and have several values."""
    return _several(obs, _NAME)


def may_name_sections(column: str) -> bool:
    """Check that a column is called like sections, their subjects or what was done to them."""
    return bool(_NAME.search(column) or _LIKE_A_NAME.search(column))


def _several(obs: pd.DataFrame, name: re.Pattern[str]) -> list[str]:
    named = [str(c) for c in obs if isinstance(c, str) and name.search(c)]
    return [c for c in named if 1 < obs[c].nunique() <= max(1, len(obs) // 3)]


def check_one_section(obs: pd.DataFrame, pos: NDArray[np.float64]) -> None:
    """Refuse sections that lie over each other; those that lie apart are one slide.

    Args:
        obs: Table of the cells.
        pos: Cell centres in any unit, ``[N, 2]``.

    Raises:
        ValueError: Cells of one section lie among those of another, by a column of ``obs`` or the
            ends of the ids; many cells share their place; or spots form several lattices.
    """
    sure = section_columns(obs)
    maybe = [
        c
        for c in _several(obs, _LIKE_A_NAME)
        if len(obs) >= _FEW * obs[c].nunique() and not pd.api.types.is_bool_dtype(obs[c])
    ]
    around = _surroundings(pos)
    for column in dict.fromkeys([*sure, *maybe]) if len(obs) >= _FEW else ():
        code, names = pd.factorize(obs[column])
        share = _mixed_shares(around, code)
        mixed = float(share.max(initial=0.0))
        if mixed > _MIXED and (
            column in sure or (share.mean() > _ALL_MIXED and _lie_over_each_other(around, code))
        ):
            listed = ", ".join(map(repr, names[:5].tolist())) + (", …" if len(names) > 5 else "")
            raise ValueError(
                f"Expected one section, got {len(names)} in obs[{column!r}] ({listed}) that lie "
                f"over each other: up to {mixed:.0%} of one are among cells of others. Pass "
                f"sample_key={column!r} to read() for a list of slides, or one_section=True to "
                "take them as one"
            )
    seen = _by_ids(obs.index, around) or _by_position(pos) or _by_lattices(pos)
    if seen:
        raise ValueError(
            f"Expected one section, got several that lie over each other: {seen}. Name the section "
            "of each cell in a column of obs and pass it as sample_key=… to read(), or "
            "one_section=True to take them as one"
        )


class _Surroundings(NamedTuple):
    """Some of the cells ``rows [R]`` with the step to their neighbours ``near [R, K]``."""

    rows: NDArray[np.int64]
    near: NDArray[np.int64]
    step: NDArray[np.float64]  # [R, K, 2], nearest first


def _surroundings(pos: NDArray[np.float64]) -> _Surroundings:
    rows = np.arange(len(pos))[:: max(1, len(pos) // _SAMPLED)] if len(pos) > 2 else np.arange(0)
    near = np.empty((0, 0), np.int64)
    if len(rows):
        near = cKDTree(pos).query(pos[rows], k=min(_NEIGHBORS + 1, len(pos)))[1][:, 1:]
    return _Surroundings(rows, near, pos[near] - pos[rows][:, None])


def _lie_over_each_other(around: _Surroundings, code: NDArray[np.int64]) -> bool:
    """Whether cells keep a distance to those of their own label alone.

    Cells of one tissue do not lie within each other, whatever they are called; those of sections
    that were put over each other do, so the closest neighbours are of another section.
    """
    same = code[around.near] == code[around.rows][:, None]  # [R, K]
    first = np.linalg.norm(around.step[:, 0], axis=1)
    closest = first <= np.quantile(first, _CLOSEST)
    return bool(same[closest, 0].mean() < _AVOID * same[:, 1:].mean())


def _mixed_shares(around: _Surroundings, code: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of each section's cells that lie among those of others, ``[S]``."""
    known = code[around.rows] >= 0
    rows, near, step = (part[known] for part in around)
    if not len(rows):
        return np.zeros(0)
    theirs, own = code[near], code[rows]
    other = (theirs != own[:, None]) & (theirs >= 0)
    # the section that most of the others belong to: [R, K, K] comparisons of neighbours
    many = (theirs[:, :, None] == theirs[:, None, :]).sum(axis=2) * other
    most = np.take_along_axis(theirs, many.argmax(axis=1)[:, None], axis=1)
    of_most = other & (theirs == most)
    angle = np.where(of_most, np.arctan2(step[..., 1], step[..., 0]), np.nan)
    angle.sort(axis=1)  # missing ones last
    last = np.nanmax(np.where(of_most.any(1)[:, None], angle, 0.0), axis=1)
    gap = np.fmax(np.nan_to_num(np.diff(angle, axis=1)).max(axis=1), angle[:, 0] + 2 * np.pi - last)
    among = (of_most.sum(1) >= 3) & (gap < _GAP)
    table = pd.DataFrame({"own": own, "among": among, "alike": 1 - other.mean(axis=1)})
    found = table.groupby("own").agg({"among": "mean", "alike": "mean"})
    return np.where(found["alike"] < _OWN, 1 - found["alike"], found["among"])


def _by_ids(ids: pd.Index, around: _Surroundings) -> str | None:
    """Ids that repeat but for their end or beginning, as ``-0`` and ``-1`` of joined tables."""
    if len(ids) < _FEW:
        return None
    text = ids.astype(str)
    for pattern, what in ((r"^(.+)[-_:]([^-_:]+)$", "end"), (r"^([^-_:]+)[-_:](.+)$", "begin")):
        split = text.str.extract(pattern)
        stem, mark = (split[0], split[1]) if what == "end" else (split[1], split[0])
        if stem.isna().any() or stem.duplicated(keep=False).mean() < 0.5:
            continue
        code, marks = pd.factorize(mark)
        few = 1 < len(marks) <= max(2, len(ids) // 20)
        if few and _mixed_shares(around, code).max(initial=0.0) > _MIXED:
            listed = ", ".join(map(repr, marks[:5]))
            return f"ids of cells are the same but for how they {what} ({listed})"
    return None


def _by_position(pos: NDArray[np.float64]) -> str | None:
    shared = float(pd.DataFrame(pos).duplicated(keep=False).mean()) if len(pos) else 0.0
    return f"{shared:.0%} of the cells share their place with another" if shared > _MIXED else None


def _by_lattices(pos: NDArray[np.float64]) -> str | None:
    """Spots that form no lattice together, and several one by one."""
    middle = np.median(pos, axis=0) if len(pos) else 0.0
    part = pos[np.argsort(np.abs(pos - middle).max(axis=1))[:_SPOTS]]
    if _is_one_lattice(part):
        return None
    code = np.full(len(part), -1)
    for number in range(_LATTICES):
        left = np.flatnonzero(code < 0)
        if len(left) < _FEWEST or (spots := _one_lattice(part[left])) is None:
            break
        code[left[spots]] = number
    sizes = np.bincount(code[code >= 0])
    if len(sizes) < 2 or sizes.sum() < 0.8 * len(part):
        return None
    if _mixed_shares(_surroundings(part), code).max(initial=0.0) <= _MIXED:
        return None
    return f"spots form {len(sizes)} lattices, of {' and '.join(map(str, sizes))} spots"


def _is_one_lattice(pos: NDArray[np.float64]) -> bool:
    """Whether spots lie on a lattice and have most of its neighbours, not those of a pair."""
    found = lattice(pos)
    if found is None:
        return False
    reach = cKDTree(pos).query(pos, k=7, distance_upper_bound=1.3 * found.pitch)[0]  # [N, 7]
    return bool(
        np.isfinite(reach[:, 1:]).sum(1).mean()
        > _WHOLE * (4 if found.kind == "square" else 6) - 0.5
    )


def _one_lattice(pos: NDArray[np.float64]) -> NDArray[np.bool_] | None:
    """Spots of one lattice, grown from a spot whose neighbours form a regular star, ``[N]``."""
    tree = cKDTree(pos)
    for seed in np.argsort(np.abs(pos - np.median(pos, axis=0)).max(axis=1))[:20]:
        near = pos[tree.query(pos[seed], k=min(25, len(pos)))[1][1:]] - pos[seed]
        z = near[:, 0] + 1j * near[:, 1]
        z = z[np.abs(z) > 0]
        stars: list[tuple[float, NDArray[np.complex128]]] = []
        for fold in (6, 4):
            turns = np.exp(2j * np.pi * np.arange(fold) / fold)
            off = np.abs(z[:, None, None] * turns[:, None] - z).min(axis=2).max(axis=1)
            stars += [(float(np.abs(step)), step * turns) for step in z[off < _STAR * np.abs(z)]]
        for _, steps in sorted(stars, key=lambda star: star[0])[:3]:
            found, bonds = _grow(pos, tree, int(seed), steps)
            is_whole = bonds > _WHOLE * len(steps)
            if found.sum() >= max(_FEWEST, 0.1 * len(pos)) and is_whole and lattice(pos[found]):
                return found
    return None


def _grow(
    pos: NDArray[np.float64], tree: cKDTree, seed: int, steps: NDArray[np.complex128]
) -> tuple[NDArray[np.bool_], float]:
    """Spots that bonds of a lattice reach from a seed, and their mean number of bonds."""
    bonds = np.stack([steps.real, steps.imag], 1)
    inside = np.zeros(len(pos), dtype=bool)
    inside[seed] = True
    front, hits = np.array([seed]), 0
    while len(front):
        reach = (pos[front][:, None] + bonds).reshape(-1, 2)
        gap, found = tree.query(reach, distance_upper_bound=_OFF * float(np.abs(steps[0])))
        hits += int(np.isfinite(gap).sum())
        new = np.unique(found[np.isfinite(gap)])
        front = new[~inside[new]]
        inside[front] = True
    return inside, hits / int(inside.sum())
