"""Pairs of whole niches."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from spatiagraph.data.normalization import log_normalize
from spatiagraph.data.slide import Slide, check_unique_ids
from spatiagraph.flow.coupling import couple
from spatiagraph.flow.randomness import named_rng
from spatiagraph.pairing.expression import joint_components
from spatiagraph.pairing.transitions import (
    Transition,
    Transitions,
    as_transitions,
    check_states,
    in_state,
)
from spatiagraph.pairing.transitions import column as obs_column

COLUMNS = ("transition", "slide", "donor", "control", "target", "confidence")


def pair_niches(
    slides: Sequence[Slide],
    transitions: Transitions,
    *,
    states_key: str,
    niche_key: str,
    min_fraction: float = 0.05,
    min_cells: int = 5,
    min_niches: int = 2,
    max_niches: int | None = 200,
    epsilon: float = 0.05,
    num_components: int = 50,
    seed: int = 0,
) -> pd.DataFrame:
    """Give each niche before a transition a niche of the same slide that has undergone it.

    A niche is a control where at least ``min_fraction`` of its labelled cells are in the control
    state and fewer in the target state, and a target where at least as many are in the target
    state. Counts are summed over all cells of a niche, normalised expression is averaged; both are
    then treated as in :func:`pair_states`.

    Args:
        slides: Cohort.
        transitions: Table of ``control``, ``target`` and ``tag``, or rows of these.
        states_key: ``obs`` column of states; cells without one are not labelled.
        niche_key: ``obs`` column of niches.
        min_fraction: Share of labelled cells that makes a niche.
        min_cells: Labelled cells that a niche must hold.
        min_niches: Niches of either kind that a slide must hold.
        max_niches: Niches of either kind taken from a slide; ``None`` takes all.
        epsilon: Strength of the blur, in units of the median distance.
        num_components: Principal components.
        seed: Of sub-sampling.

    Returns:
        One row per pair: ``transition`` (tag), ``slide``, ``donor``, ``control`` and ``target``
        (niches), ``confidence``.

    Raises:
        ValueError: A column or state does not exist, or nothing at all could be paired.
    """
    requested = as_transitions(transitions)
    check_unique_ids(slides)
    states = [obs_column(slide, states_key) for slide in slides]
    check_states(states, requested, states_key)
    tables = []
    for slide, state in zip(slides, states, strict=True):
        niche = obs_column(slide, niche_key)
        code, names = pd.factorize(niche, sort=True)
        kind = slide.expression
        profiles = _profiles(slide.counts, code, len(names), mean=kind == "normalized")
        shares = _Shares(state, code, len(names))
        for transition in requested:
            sides = shares.roles(transition, min_fraction, min_cells)
            if min(len(side) for side in sides) < min_niches:
                continue
            rng = named_rng(seed, slide.slide_id, transition.tag)
            control, target = (
                side
                if max_niches is None or len(side) <= max_niches
                else np.sort(rng.choice(side, max_niches, replace=False))
                for side in sides
            )
            x, y = joint_components(
                log_normalize(profiles[control], expression=kind),
                log_normalize(profiles[target], expression=kind),
                num_components,
            )
            found = couple(x, y, epsilon=epsilon)
            tables.append(
                pd.DataFrame(
                    {
                        "transition": transition.tag,
                        "slide": slide.slide_id,
                        "donor": slide.donor,
                        "control": np.asarray(names[control]),
                        "target": np.asarray(names[target[found.target.numpy()]]),
                        "confidence": found.confidence.numpy(),
                    }
                ).astype(dict.fromkeys(COLUMNS[:-1], "string"))
            )
    if not tables:
        raise ValueError(
            f"Expected {min_niches} niches of {min_cells} labelled cells before and after a "
            f"transition on some slide, got none for {[t.tag for t in requested]}. Lower "
            f"min_cells or min_niches, or take other niches than obs[{niche_key!r}]"
        )
    return pd.concat(tables, ignore_index=True)


def rows_of_niches(pairs: pd.DataFrame, slides: Sequence[Slide]) -> pd.DataFrame:
    """Pairs of niches as pairs of rows, which loaders of pairs take.

    Args:
        pairs: Result of :func:`pair_niches`.
        slides: The slides that were paired, with a row for each niche: see
            :func:`~spatiagraph.data.slide_of_niches`.

    Returns:
        The pairs of which both niches have a row, with ``control_row`` and ``target_row``.

    Raises:
        ValueError: A slide of the pairs is not given, or none of the niches has a row.
    """
    known = {slide.slide_id: slide.adata.obs_names for slide in slides}
    if unknown := sorted(set(pairs["slide"]) - set(known)):
        raise ValueError(f"Expected the slides of niches {unknown}, got {sorted(known)}")
    pairs = pairs.copy()
    for side in ("control", "target"):
        rows = np.full(len(pairs), -1)
        for name, niches in known.items():
            here = (pairs["slide"] == name).to_numpy(bool)
            rows[here] = niches.get_indexer(pd.Index(pairs.loc[here, side].astype(str)))
        pairs[f"{side}_row"] = rows
    found = pairs[(pairs["control_row"] >= 0) & (pairs["target_row"] >= 0)]
    if found.empty:
        raise ValueError(
            "Expected slides with a row for each niche of the pairs, got none of "
            f"{pairs['control'].iloc[:3].tolist()}: see slide_of_niches"
        )
    return found.reset_index(drop=True)


class _Shares:
    """Counts of the labelled cells of each niche by state."""

    def __init__(self, state: pd.Series, code: NDArray[np.int64], num_niches: int):
        self.state, self.code, self.num_niches = state, code, num_niches
        self.labelled = self._count(state.notna().to_numpy(bool))

    def _count(self, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(self.code[chosen & (self.code >= 0)], minlength=self.num_niches)

    def roles(
        self, transition: Transition, min_fraction: float, min_cells: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Niches before and after a transition."""
        before, after = (
            self._count(in_state(self.state, name)) / np.maximum(self.labelled, 1)
            for name in (transition.control, transition.target)
        )
        large = self.labelled >= min_cells
        target = large & (after >= min_fraction)
        control = large & (before >= min_fraction) & ~target
        return np.flatnonzero(control), np.flatnonzero(target)


def _profiles(
    counts: csr_matrix, code: NDArray[np.int64], num_niches: int, *, mean: bool
) -> csr_matrix:
    """Expression of each niche, ``[M, G]``: the mean or the sum of its cells."""
    rows = np.flatnonzero(code >= 0)
    weight = np.ones(len(rows))
    if mean:
        weight /= np.bincount(code[rows], minlength=num_niches)[code[rows]]
    return csr_matrix(csr_matrix((weight, (code[rows], rows)), (num_niches, len(code))) @ counts)
