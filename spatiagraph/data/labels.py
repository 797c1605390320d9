"""Labels of cells as numbers: classes of ``obs`` columns, and the branches above them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from spatiagraph._config import build
from spatiagraph._savable import savable
from spatiagraph.data.checks import nearest
from spatiagraph.data.slide import Slide

UNKNOWN = ("unknown", "NA", "nan", "undetermined", "Ambiguous")
"""Values that say that nothing is known, in any case."""


@savable
@dataclass(frozen=True)
class LabelSet:
    """The classes of some ``obs`` columns, in order. Saved with a model.

    Attributes:
        classes: Column → its classes: the leaves, where there is an ontology.
        parents: Column → branch of its ontology → the classes below it. A cell may be labelled
            with a branch where no more is known of it.
        unknown: Values that mean no label, in upper or lower case; so do missing and empty ones.

    Raises:
        ValueError: If a column has no classes, a class occurs twice or means no label, or a branch
            has no classes, others than those of its column, or the name of one.

    Examples:
        >>> labels = LabelSet({"type": ["B", "CD4", "CD8"]}, {"type": {"T": ["CD4", "CD8"]}})
        >>> labels.names("type")
        ['B', 'CD4', 'CD8', 'T']
        >>> labels.num_classes
        [3]
    """

    classes: Mapping[str, Sequence[str]]
    parents: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    unknown: Sequence[str] = UNKNOWN

    def __post_init__(self) -> None:
        # plain lists, so that what was saved and read back is equal
        own = {column: list(names) for column, names in self.classes.items()}
        parents = {
            column: {name: list(leaves) for name, leaves in above.items()}
            for column, above in self.parents.items()
        }
        object.__setattr__(self, "classes", own)
        object.__setattr__(self, "parents", parents)
        object.__setattr__(self, "unknown", tuple(self.unknown))
        if stray := sorted(set(parents) - set(own)):
            raise ValueError(f"Expected 'parents' of columns with classes, got {stray}")
        for column in own:
            self._check(column)

    @classmethod
    def from_slides(
        cls,
        slides: Sequence[Slide],
        columns: Sequence[str],
        *,
        parents: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
        unknown: Sequence[str] = UNKNOWN,
    ) -> Self:
        """All classes that occur, sorted.

        Args:
            slides: The slides; a column need not be in all of them.
            columns: Columns of ``obs``.
            parents: Column → branch → classes below it. Branches are no classes; what is below
                them is one, even if it does not occur.
            unknown: Values that mean no label.

        Raises:
            ValueError: If a column is in no slide, or has no class.
        """
        parents = {} if parents is None else parents
        classes = {}
        for column in columns:
            found: set[str] | None = None
            for slide in slides:  # one at a time: those of a cohort need not stay in memory
                if column in slide.adata.obs:
                    found = (found or set()) | set(_values(slide, column, unknown)[1])
            if found is None:
                known = {str(c) for slide in slides for c in slide.adata.obs}
                raise ValueError(
                    f"Expected a column {column!r} in the obs of some slide, got none. "
                    f"{nearest(column, known)}"
                )
            above = parents.get(column, {})
            below = {name for leaves in above.values() for name in leaves}
            classes[column] = sorted((found - set(above)) | below)
        return cls(classes, {c: parents[c] for c in columns if c in parents}, unknown)

    @property
    def num_classes(self) -> list[int]:
        """Number of classes of each column, branches not counted, ``[K]``."""
        return [len(names) for names in self.classes.values()]

    @property
    def descendants(self) -> list[Tensor | None]:
        """For each column the classes below each branch, ``[P, C]``; ``None`` without branches.

        As :func:`~spatiagraph.losses.hierarchical_bce` takes them.
        """
        return [
            self._below(column) if self.parents.get(column) else None for column in self.classes
        ]

    def names(self, column: str) -> list[str]:
        """Classes of a column, then its branches: the name of each number."""
        return [*self.classes[column], *self.parents.get(column, {})]

    def encode(self, slide: Slide) -> Tensor:
        """Labels of the cells of a slide as numbers.

        Args:
            slide: The slide; it may lack columns.

        Returns:
            ``[N, K]``: a class as its index in ``classes``, a branch as the number of classes plus
            its index in ``parents``, -1 for unknown.

        Raises:
            ValueError: If a column has values that are neither, with the number of their cells.
        """
        result = torch.full((slide.num_cells, len(self.classes)), -1)
        for k, column in enumerate(self.classes):
            if column not in slide.adata.obs:
                continue
            code, values = _values(slide, column, self.unknown)
            number = {name: i for i, name in enumerate(self.names(column))}
            strange = [i for i, name in enumerate(values) if name not in number]
            if strange:
                self._refuse(slide, column, code, values, strange)
            # one more entry at the end, which is what code -1 finds
            place = np.array([*(number[name] for name in values), -1], dtype=np.int64)
            result[:, k] = torch.from_numpy(place[code])
        return result

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "classes": {column: list(names) for column, names in self.classes.items()},
            "parents": {
                column: {name: list(leaves) for name, leaves in above.items()}
                for column, above in self.parents.items()
            },
            "unknown": list(self.unknown),
        }

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote."""
        return build(cls, config, where="the saved labels")

    def _below(self, column: str) -> Tensor:
        leaves = self.classes[column]
        table = [[leaf in below for leaf in leaves] for below in self.parents[column].values()]
        return torch.tensor(table, dtype=torch.bool)

    def _check(self, column: str) -> None:
        names, above = self.classes[column], self.parents.get(column, {})
        if not names:
            raise ValueError(f"Expected classes for the label {column!r}, got none")
        if repeated := sorted(name for name, times in Counter(names).items() if times > 1):
            raise ValueError(f"Expected each class of {column!r} once, got {repeated} more often")
        if vague := [name for name in (*names, *above) if _means_nothing(name, self.unknown)]:
            raise ValueError(
                f"Expected classes of {column!r} that say something, got {vague}: leave them out, "
                "or pass unknown=…"
            )
        if both := sorted(set(names) & set(above)):
            raise ValueError(f"Expected branches of {column!r} that are no classes, got {both}")
        for name, leaves in above.items():
            if not leaves or set(leaves) - set(names):
                raise ValueError(
                    f"Expected classes of {column!r} below its branch {name!r}, got {list(leaves)}"
                )

    def _refuse(
        self,
        slide: Slide,
        column: str,
        code: NDArray[np.integer],
        values: list[str],
        strange: list[int],
    ) -> None:
        size = np.bincount(code[code >= 0], minlength=len(values))
        listed = ", ".join(f"{values[i]!r} ({size[i]} cells)" for i in strange[:5])
        more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
        raise ValueError(
            f"Expected classes that the labels know in obs[{column!r}] of slide "
            f"{slide.slide_id!r}, got {listed}{more}, {size[strange].sum()} of {slide.num_cells} "
            f"cells. {nearest(values[strange[0]], self.names(column))}. Rename them, or name them "
            "in unknown=…"
        )


def _values(
    slide: Slide, column: str, unknown: Sequence[str]
) -> tuple[NDArray[np.integer], list[str]]:
    """Number of the value of each cell, ``[N]`` with -1 for no label, and the values."""
    code, raw = pd.factorize(_whole(slide.adata.obs[column]))
    kept: dict[str, int] = {}
    place = [
        -1 if _means_nothing(name, unknown) else kept.setdefault(name, len(kept))
        for name in map(str, raw)
    ]
    return np.array([*place, -1], dtype=np.int64)[code], list(kept)


def is_unlabelled(values: pd.Series, unlabelled: Sequence[str] | None = None) -> pd.Series:
    """Mask of the cells without a label, ``[N]`` bool.

    Args:
        values: Label of each cell, ``[N]``.
        unlabelled: Values that mean there is none, in any case; :data:`UNKNOWN` when ``None``.

    Examples:
        >>> is_unlabelled(pd.Series(["L1", "NA", None, "Unknown"])).tolist()
        [False, True, True, True]
    """
    words = UNKNOWN if unlabelled is None else unlabelled
    code, raw = pd.factorize(values)
    names = zip(map(str, raw), map(str, _whole(pd.Series(raw))), strict=True)  # 99.0 is 99 as well
    nothing = [any(_means_nothing(name, words) for name in both) for both in names]
    return pd.Series(np.array([*nothing, True])[code], index=values.index)


def _whole(values: pd.Series) -> pd.Series:
    """Whole numbers as integers where some cells have none, which makes them floats."""
    if not pd.api.types.is_float_dtype(values.dtype):
        return values
    finite = values.dropna()
    exact = np.abs(finite) < 2**53  # nor infinite
    is_whole = exact.all() and (finite == finite.round()).all()
    return values.astype("Int64") if is_whole else values


def _means_nothing(name: str, unknown: Sequence[str]) -> bool:
    word = name.strip().casefold()
    return not word or word in {entry.casefold() for entry in unknown}
