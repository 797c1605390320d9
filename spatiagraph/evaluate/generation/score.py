"""All scores of a generator in one table, bounds beside them."""

from collections.abc import Hashable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from spatiagraph.evaluate.extractors import MEASURED, Extractor, extract_features
from spatiagraph.evaluate.generation.distances import (
    MIN_FRECHET,
    frechet_distance,
    kernel_distance,
)
from spatiagraph.evaluate.generation.morphology_score import ALL, halves, score_morphology

_SCORES = ("wasserstein_correlation", "ks")  # the higher the better; distances are the other way


def score_generation(
    generated: ArrayLike | Tensor,
    target: ArrayLike | Tensor,
    control: ArrayLike | Tensor,
    transition: Sequence[str],
    *,
    mpp: float,
    wrong: ArrayLike | Tensor | None = None,
    start: ArrayLike | Tensor | None = None,
    target_id: Sequence[Hashable] | None = None,
    extractors: Sequence[str] | Mapping[str, Extractor] = ("morphology",),
    weights: Mapping[str, str | Path] | None = None,
    foreground: Literal["bright", "dark"] = "bright",
    component: Literal["largest", "center"] = "largest",
    measured: Literal["morphology", "cellprofiler"] = "morphology",
    min_frechet: int = MIN_FRECHET,
    num_subsets: int = 100,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Score generated cells against real ones, per transition and in all.

    Two bounds stand beside every score: ``identity`` returns the control cell, ``random_target`` is
    a random half of the real targets, scored against the other half; a cell that is the target of
    several controls lies in one half, once. With ``wrong``, the same cells made under the condition
    of another transition are scored too (``wrong_condition``), and ``gap`` says by how much the
    right condition is better: a generator that does not listen has none. With ``start``, what the
    generator made before training is scored (``start``): what it learned is the difference.

    Args:
        generated: Images made of the control cells, ``[N, C, H, W]`` in [0, 1].
        target: Real image of the partner of each, ``[N, C, H, W]``.
        control: Real image of each control cell, ``[N, C, H, W]``.
        transition: Transition of each row, ``[N]``.
        mpp: µm per pixel.
        wrong: Images made under wrong conditions, ``[N, C, H, W]``.
        start: Images that flows start at, ``[N, C, H, W]``, such as those of a
            :class:`~spatiagraph.nn.GaussianMap`.
        target_id: Which cell each target is, ``[N]``; by default equal images are of one cell.
        extractors: What features distances are taken of: names, or name → extractor, see
            :func:`~spatiagraph.evaluate.extract_features`.
        weights: Name of an extractor → its local weight file.
        foreground: Whether nuclei are ``"bright"`` or ``"dark"``.
        component: The object that is measured, see :func:`~spatiagraph.data.measure_morphology`.
        measured: Features of that object that ``ks`` and ``wasserstein_correlation`` are of.
        min_frechet: Images on each side below which no Fréchet distance is given (NaN).
        num_subsets: Random subsets of the kernel distance.
        seed: Of halves and subsets.
        progress: Whether to show a progress bar.

    Returns:
        One row per generator and transition, ``"all"`` among them: ``wasserstein_correlation`` and
        ``ks`` of what is measured (see :func:`score_morphology`), ``num_images``, ``num_targets``
        (the cells they are scored against), ``num_valid`` (images with a nucleus to measure), and
        for each extractor ``kernel_…`` with its deviation
        over subsets ``kernel_…_std`` and ``frechet_…``. What is measured is standardised over
        control and target cells of all transitions for these. In rows of ``gap`` positive is better
        throughout. NaN where too few cells could be measured.

    Raises:
        ValueError: If images differ in number or shape, a transition has the name ``"all"``, or in
            none of them two control and two target cells can be measured.
    """
    images = {"control": control, "generated": generated, "target": target}
    others = {"start": start, "wrong_condition": wrong}
    images |= {name: x for name, x in others.items() if x is not None}
    tags = np.asarray(transition, dtype=object).astype(str)
    shapes = {name: list(np.shape(x)) for name, x in images.items()}
    if len(set(map(tuple, shapes.values()))) != 1 or tags.shape != (shapes["control"][0],):
        raise ValueError(
            f"Expected a transition and images of one shape for each cell, got {len(tags)} "
            f"transitions and {shapes}"
        )
    if target_id is None:
        cells = _by_content(target)
    elif len(target_id) == len(tags):
        cells = list(target_id)
    else:
        raise ValueError(
            f"Expected 'target_id' of each of {len(tags)} targets, got {len(target_id)}"
        )
    named = extractors if isinstance(extractors, Mapping) else {name: name for name in extractors}

    def features(extractor: Extractor, name: str) -> dict[str, NDArray[np.float64]]:
        return {
            side: extract_features(
                x,
                extractor,
                weights=(weights or {}).get(name),
                mpp=mpp,
                foreground=foreground,
                component=component,
                progress=progress,
            )
            for side, x in images.items()
        }

    if measured not in MEASURED:
        raise ValueError(f"Expected 'measured' among {', '.join(MEASURED)}, got {measured!r}")
    objects = features(measured, measured)
    names = list(dict.fromkeys(tags.tolist()))
    _check_measured(objects, tags, names, foreground)
    by_name = {side: {name: x[tags == name] for name in names} for side, x in objects.items()}
    table = score_morphology(
        by_name["control"],
        by_name["generated"],
        by_name["target"],
        beside={name: by_name[name] for name in others if name in by_name},
        target_id={
            name: [cells[int(row)] for row in np.flatnonzero(tags == name)] for name in names
        },
        seed=seed,
    )
    rows = _Rows(tags, names, cells, seed)
    table["num_valid"] = [
        len(_finite(objects[_side(who)][rows(who, name)[0]])) for who, name in table.index
    ]
    for label, extractor in named.items():
        found = objects if extractor == measured else features(extractor, label)
        if extractor in MEASURED:
            found = _standardized(found)
        distances = []
        for who, name in table.index:
            ours, theirs = rows(who, name)
            x, y = found[_side(who)][ours], found["target"][theirs]
            if extractor in MEASURED:  # what cannot be measured is counted, and left out
                x, y = _finite(x), _finite(y)
            distances.append(_distances(x, y, min_frechet, num_subsets, seed))
        names_of = [f"kernel_{label}", f"kernel_{label}_std", f"frechet_{label}"]
        table[names_of] = np.array(distances)
    return table if wrong is None else _with_gap(table)


class _Rows:
    """Images of a generator in a transition, and the targets they are scored against."""

    def __init__(self, tags: NDArray, names: list[str], cells: Sequence[Hashable], seed: int):
        rng = np.random.default_rng(seed)
        self.all = {name: np.flatnonzero(tags == name) for name in names}
        self.half, self.rest = {}, {}
        for name, rows in self.all.items():
            half, rest = halves([cells[int(row)] for row in rows], rng)
            self.half[name], self.rest[name] = rows[half], rows[rest]
        self.all[ALL] = np.concatenate(list(self.all.values()))
        taken: set[Hashable] = set()  # transitions may share targets
        for part in (self.half, self.rest):
            part[ALL] = _first_of(np.concatenate(list(part.values())), cells, taken)

    def __call__(self, generator: str, name: str) -> tuple[NDArray, NDArray]:
        if generator == "random_target":
            return self.half[name], self.rest[name]
        return self.all[name], self.all[name]


def _first_of(rows: NDArray, cells: Sequence[Hashable], taken: set[Hashable]) -> NDArray:
    """Rows of cells that are not taken yet, the first of each, which they are then."""
    kept = []
    for row in rows:
        if cells[row] not in taken:
            taken.add(cells[row])
            kept.append(row)
    return np.array(kept, dtype=np.int64)


def _by_content(images: ArrayLike | Tensor) -> list[Hashable]:
    """What tells images apart where no id does: their pixels."""
    array = np.asarray(images.cpu() if isinstance(images, Tensor) else images)
    return [blake2b(image.tobytes()).digest() for image in array]


def _side(generator: str) -> str:
    """Whose images a generator returns."""
    return {"identity": "control", "random_target": "target"}.get(generator, generator)


def _finite(features: NDArray) -> NDArray:
    """Rows without NaN."""
    return features[np.flatnonzero(np.isfinite(features).all(axis=1))]


def _distances(
    x: NDArray, y: NDArray, min_frechet: int, num_subsets: int, seed: int
) -> tuple[float, float, float]:
    """Mean and deviation of the kernel distance, and the Fréchet distance; NaN for too few."""
    fewest = min(len(x), len(y))
    if fewest < 2:
        return np.nan, np.nan, np.nan
    kernel = kernel_distance(x, y, num_subsets=num_subsets, seed=seed)
    enough = fewest >= max(min_frechet, 2)
    return *kernel, frechet_distance(x, y, min_images=min_frechet) if enough else np.nan


def _standardized(features: dict[str, NDArray]) -> dict[str, NDArray]:
    """Features in units of their deviation over all real cells."""
    real = np.concatenate([features["control"], features["target"]])
    mean, std = np.nanmean(real, axis=0), np.nanstd(real, axis=0)
    return {side: (x - mean) / np.where(std > 0, std, 1) for side, x in features.items()}


def _with_gap(table: pd.DataFrame) -> pd.DataFrame:
    """The table and by how much the right condition is better than the wrong one."""
    right, wrong = table.loc["generated"], table.loc["wrong_condition"]
    gap = {}
    for name in table.columns.astype(str):
        if name in _SCORES:
            gap[name] = right[name] - wrong[name]
        elif name.startswith("num_"):
            gap[name] = np.minimum(right[name], wrong[name])
        elif name.endswith("_std"):
            gap[name] = np.hypot(right[name], wrong[name])
        else:
            gap[name] = wrong[name] - right[name]
    return pd.concat([table, pd.concat({"gap": pd.DataFrame(gap)}, names=["generator"])])


def _check_measured(
    measured: dict[str, NDArray], tags: NDArray, names: list[str], foreground: str
) -> None:
    """Refuse cells of which no transition can be scored."""
    sides = ("control", "target")
    counts = {
        name: {side: len(_finite(measured[side][tags == name])) for side in sides} for name in names
    }
    if not any(min(count.values()) > 1 for count in counts.values()):
        raise ValueError(
            f"Expected 2 or more control and target cells of some transition with a {foreground} "
            f"nucleus, got {counts}"
        )
