"""Transitions: changes of state from control to target."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spatiagraph.data.checks import nearest
from spatiagraph.data.slide import Slide


class Transition(NamedTuple):
    """A change from one state to another.

    Attributes:
        control: State that cells are in.
        target: State that they might reach.
        tag: Name of the change.
    """

    control: str
    target: str
    tag: str


Transitions = pd.DataFrame | Sequence[Sequence[str]]


def as_transitions(transitions: Transitions) -> list[Transition]:
    """Read the user's table of transitions.

    Args:
        transitions: Table with columns ``control``, ``target`` and ``tag``, or rows of these three.

    Returns:
        One :class:`Transition` per row, in order.

    Raises:
        ValueError: There are none, a column is missing, a tag occurs twice or is ``"all"``, which
            stands for all of them in scores, or a transition leads nowhere.

    Examples:
        >>> as_transitions([("resting", "active", "activation")])
        [Transition(control='resting', target='active', tag='activation')]
    """
    if isinstance(transitions, pd.DataFrame):
        missing = [name for name in Transition._fields if name not in transitions]
        if missing:
            raise ValueError(
                f"Expected transitions with columns control, target, tag; got no "
                f"{', '.join(missing)}. "
                f"{nearest(missing[0], transitions.columns.astype(str).tolist())}"
            )
        transitions = transitions[list(Transition._fields)].to_numpy().tolist()
    rows = list(transitions)
    if not rows or any(isinstance(row, str) or len(row) != 3 for row in rows):
        raise ValueError(
            f"Expected at least one transition as (control, target, tag), got {rows[:3]}"
        )
    found = [Transition(*map(str, row)) for row in rows]
    tags = pd.Series([transition.tag for transition in found])
    if tags.duplicated().any() or (tags == "all").any():
        raise ValueError(
            f"Expected a tag of its own for each transition, and none 'all', got {tags.tolist()}"
        )
    still = [t.tag for t in found if t.control == t.target]
    if still:
        raise ValueError(f"Expected transitions between two states, got the same for {still}")
    return found


def column(slide: Slide, key: str) -> pd.Series:
    """Text of an ``obs`` column, missing where there is none, with rows numbered.

    Args:
        slide: Cells.
        key: Column.

    Raises:
        ValueError: There is no such column.
    """
    if key not in slide.adata.obs:
        raise ValueError(
            f"Expected a column {key!r} in obs of slide {slide.slide_id!r}. "
            f"{nearest(key, slide.adata.obs.columns.astype(str).tolist())}"
        )
    values = slide.adata.obs[key].reset_index(drop=True)
    return values.astype(str).where(values.notna(), np.nan).astype("string")


def in_state(states: pd.Series, name: str) -> NDArray[np.bool_]:
    """Mask of the cells in a state, ``[N]``; those of no known state are not."""
    return (states == name).fillna(False).to_numpy(bool)


def cells_among(slide: Slide, among: Mapping[str, NDArray[np.bool_]] | None) -> NDArray[np.bool_]:
    """Mask of the cells of a slide that count, ``[N]``; all of slides that are not named.

    Args:
        slide: Cells.
        among: Slide id → mask.

    Raises:
        ValueError: The mask is of other cells.
    """
    mask = (among or {}).get(slide.slide_id, np.ones(slide.num_cells, dtype=bool))
    if mask.dtype != bool or mask.shape != (slide.num_cells,):
        raise ValueError(
            f"Expected 'among' as a mask of {slide.num_cells} cells for slide "
            f"{slide.slide_id!r}, got {mask.dtype} {list(mask.shape)}"
        )
    return mask


def check_states(states: Sequence[pd.Series], transitions: Sequence[Transition], key: str) -> None:
    """Refuse transitions between states that no cell is in.

    Args:
        states: State of each cell, per slide.
        transitions: The requested transitions.
        key: Where states come from, for the message.

    Raises:
        ValueError: A state does not occur; names it and what comes nearest.
    """
    known = sorted({str(name) for column in states for name in column.dropna().unique()})
    for transition in transitions:
        for state in (transition.control, transition.target):
            if state not in known:
                raise ValueError(
                    f"Expected the states of transition {transition.tag!r} in obs[{key!r}], got no "
                    f"cell in {state!r}. {nearest(state, known)}"
                )
