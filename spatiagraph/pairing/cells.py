"""Pairs of cells."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from spatiagraph.data.normalization import log_normalize
from spatiagraph.data.slide import Slide, check_unique_ids
from spatiagraph.flow.coupling import couple_many
from spatiagraph.flow.randomness import named_generator, named_rng
from spatiagraph.pairing.expression import joint_components
from spatiagraph.pairing.transitions import (
    Transition,
    Transitions,
    as_transitions,
    cells_among,
    check_states,
    in_state,
)
from spatiagraph.pairing.transitions import column as obs_column

logger = logging.getLogger(__name__)

COLUMNS = (
    "transition", "slide", "donor", "niche", "control", "control_row", "target", "target_row",
    "confidence",
)  # fmt: skip
_AT_ONCE = 1 << 16  # cells whose components are held until they are paired


@dataclass(frozen=True)
class _Problem:
    """Rows of cells in either state, in one niche of one slide."""

    slide: Slide
    transition: Transition
    niche: str | None
    control: NDArray[np.int64]
    target: NDArray[np.int64]

    @property
    def names(self) -> tuple[str, str, str | None]:
        """Names that with the seed fix every random number of the problem."""
        return self.slide.slide_id, self.transition.tag, self.niche


def pair_states(
    slides: Sequence[Slide],
    transitions: Transitions,
    *,
    states_key: str,
    niche_key: str | None,
    fallback: Literal["skip", "global"] = "skip",
    match: Literal["argmax", "sample", "assignment", "barycentric"] = "argmax",
    epsilon: float = 0.05,
    mass_penalty: float | None = None,
    min_cells: int = 5,
    max_cells: int | None = 500,
    num_components: int = 50,
    max_iter: int = 5000,
    among: Mapping[str, NDArray[np.bool_]] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Give each cell in a control state a cell of the same niche in the target state.

    Expression is scaled to 10,000 per cell and taken as log1p, reduced to joint principal
    components of both groups, and coupled by entropic transport (see
    :func:`~spatiagraph.flow.couple`). Images are never read. Pairs never leave their slide, nor
    their niche unless ``fallback`` allows it.

    Args:
        slides: Cohort.
        transitions: Table of ``control``, ``target`` and ``tag``, or rows of these.
        states_key: ``obs`` column of states.
        niche_key: ``obs`` column of niches, such as ``"niche"``; cells without one are left out.
            ``None`` takes a slide as one niche.
        fallback: What happens on a slide where no niche holds ``min_cells`` of both states:
            ``"skip"`` leaves it out, ``"global"`` pairs across its niches.
        match: How a partner is chosen; see :func:`~spatiagraph.flow.couple`.
        epsilon: Strength of the blur, in units of the median distance.
        mass_penalty: Unbalanced transport, see :func:`~spatiagraph.flow.couple`.
        min_cells: Cells that a niche must hold in either state.
        max_cells: Cells of either state taken from a niche, drawn by ``seed``; ``None`` takes all,
            block by block where they are many.
        num_components: Principal components.
        max_iter: Iterations of the transport at most.
        among: Slide id → mask of the cells that may be paired, ``[N]``, such as one side of a
            split; all cells of slides that are not named.
        seed: Of sub-sampling and of ``match="sample"``. What is drawn in a niche depends on
            nothing but the seed and the names of slide, transition and niche.

    Returns:
        One row per pair: ``transition`` (tag), ``slide``, ``donor``, ``niche`` (missing if pairs
        were made across niches), ``control`` and ``target`` (cell ids), ``control_row`` and
        ``target_row`` (rows in the slide), ``confidence`` (in ``[1 / M, 1]``).

    Raises:
        ValueError: A column or state does not exist, or nothing at all could be paired.

    Warns:
        UserWarning: Some transitions could not be paired; names them.
    """
    requested = as_transitions(transitions)
    if fallback not in ("skip", "global"):
        raise ValueError(f'Expected fallback to be "skip" or "global", got {fallback!r}')
    if min_cells < 1 or (max_cells is not None and max_cells < min_cells):
        raise ValueError(f"Expected 1 <= min_cells <= max_cells, got {min_cells} and {max_cells}")
    check_unique_ids(slides)
    states = [obs_column(slide, states_key) for slide in slides]
    check_states(states, requested, states_key)
    if among is not None:  # the rest is in no state
        states = [
            state.where(cells_among(slide, among))
            for state, slide in zip(states, slides, strict=True)
        ]
    niches = [None if niche_key is None else obs_column(slide, niche_key) for slide in slides]
    problems = (
        problem
        for slide, state, niche in zip(slides, states, niches, strict=True)
        for transition in requested
        for problem in _problems(
            slide, state, niche, transition, fallback, min_cells, max_cells, seed
        )
    )
    tables = [_empty()]
    for some, xs, ys in _chunks(problems, num_components):
        couplings = couple_many(
            xs,
            ys,
            epsilon=epsilon,
            match=match,
            mass_penalty=mass_penalty,
            generator=[named_generator(seed, *problem.names) for problem in some],
            max_iter=max_iter,
        )
        tables += [
            _table(problem, found.target.numpy(), found.confidence.numpy())
            for problem, found in zip(some, couplings, strict=True)
        ]
    pairs = pd.concat(tables[1:], ignore_index=True) if len(tables) > 1 else _empty()
    _report_missing(pairs, requested, niche_key, fallback, min_cells)
    return pairs


def _problems(
    slide: Slide,
    state: pd.Series,
    niche: pd.Series | None,
    transition: Transition,
    fallback: str,
    min_cells: int,
    max_cells: int | None,
    seed: int,
) -> Iterator[_Problem]:
    """Groups of cells to be paired with each other on one slide."""
    control, target = (
        np.flatnonzero(in_state(state, name)) for name in (transition.control, transition.target)
    )
    groups: list[tuple[str | None, NDArray[np.int64], NDArray[np.int64]]] = []
    if niche is not None:
        before, after = (_by_niche(niche, rows) for rows in (control, target))
        groups = [(name, before[name], after[name]) for name in sorted(before.keys() & after)]
    enough = any(min(len(a), len(b)) >= min_cells for _, a, b in groups)
    if niche is None or (not enough and fallback == "global"):
        groups = [(None, control, target)]
    for name, control, target in groups:
        if min(len(control), len(target)) < min_cells:
            logger.debug("%s: too few cells of %s in %s", slide.slide_id, transition.tag, name)
            continue
        rng = named_rng(seed, slide.slide_id, transition.tag, name)
        yield _Problem(
            slide, transition, name, _drawn(control, max_cells, rng), _drawn(target, max_cells, rng)
        )


def _by_niche(niche: pd.Series, rows: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Some of the rows by the niche they lie in; those without one are left out."""
    code, names = pd.factorize(niche.iloc[rows])
    return {str(name): rows[code == i] for i, name in enumerate(names)}


def _drawn(
    rows: NDArray[np.int64], max_cells: int | None, rng: np.random.Generator
) -> NDArray[np.int64]:
    if max_cells is None or len(rows) <= max_cells:
        return rows
    return np.sort(rng.choice(rows, max_cells, replace=False))


def _chunks(
    problems: Iterator[_Problem], num_components: int
) -> Iterator[tuple[list[_Problem], list[Tensor], list[Tensor]]]:
    """Problems with their components, as many at a time as fit well into memory."""
    some: list[_Problem] = []
    xs: list[Tensor] = []
    ys: list[Tensor] = []
    held = 0
    for problem in problems:
        counts, kind = problem.slide.counts, problem.slide.expression
        x, y = joint_components(
            log_normalize(counts[problem.control], expression=kind),
            log_normalize(counts[problem.target], expression=kind),
            num_components,
        )
        some.append(problem)
        xs.append(x)
        ys.append(y)
        held += len(x) + len(y)
        if held >= _AT_ONCE:
            yield some, xs, ys
            some, xs, ys, held = [], [], [], 0
    if some:
        yield some, xs, ys


def _table(
    problem: _Problem, partner: NDArray[np.int64], confidence: NDArray[np.float64]
) -> pd.DataFrame:
    found = partner >= 0
    names = problem.slide.adata.obs_names
    control, target = problem.control[found], problem.target[partner[found]]
    table = pd.DataFrame(
        {
            "transition": problem.transition.tag,
            "slide": problem.slide.slide_id,
            "donor": problem.slide.donor,
            "niche": problem.niche,
            "control": names[control],
            "control_row": control,
            "target": names[target],
            "target_row": target,
            "confidence": confidence[found],
        }
    )
    return table.astype(_empty().dtypes)


def _empty() -> pd.DataFrame:
    kinds = dict.fromkeys(COLUMNS, "string")
    kinds |= {"control_row": "int64", "target_row": "int64", "confidence": "float64"}
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in kinds.items()})


def _report_missing(
    pairs: pd.DataFrame,
    requested: Sequence[Transition],
    niche_key: str | None,
    fallback: str,
    min_cells: int,
) -> None:
    """Warn of the transitions without pairs, and how to get some."""
    paired = set(pairs["transition"])
    missing = [transition.tag for transition in requested if transition.tag not in paired]
    if not missing:
        return
    within = niche_key is not None and fallback == "skip"
    place = f"obs[{niche_key!r}]" if within else "slide"
    text = (
        f"Expected {min_cells} cells of both states in some {place}, got none for {missing}. "
        "Lower min_cells"
    )
    if within:
        text += ', take larger niches, or pair across niches with fallback="global"'
    if not paired:
        raise ValueError(text)
    warnings.warn(text, stacklevel=3)
