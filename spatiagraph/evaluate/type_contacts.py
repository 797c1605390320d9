"""Types of cells that are said to be neighbours, beside the same cells with permuted types."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control

from spatiagraph.evaluate.inputs import as_types


class TypeContacts(NamedTuple):
    """Contacts of types of cells that are said to be neighbours.

    Attributes:
        names: Types, ``K``.
        table: One row per two types that were asked about: ``type_a``, ``type_b``, ``pairs`` of
            cells, ``share`` of them said to be neighbours, ``expected`` if types were dealt to
            cells at random, ``z``, and two-sided ``p`` and ``q``.
    """

    names: tuple[str, ...]
    table: pd.DataFrame

    def matrix(self, value: str = "z") -> NDArray[np.float64]:
        """A column of the table as ``[K, K]``, symmetric; NaN where nothing was scored.

        Args:
            value: The column.
        """
        place = {name: i for i, name in enumerate(self.names)}
        found = np.full((len(self.names), len(self.names)), np.nan)
        a, b = (self.table[c].map(place).to_numpy(int) for c in ("type_a", "type_b"))
        found[a, b] = found[b, a] = self.table[value].to_numpy(float)
        return found


def type_contacts(
    pairs: ArrayLike,
    said: ArrayLike,
    types: ArrayLike | pd.Series,
    *,
    num_permutations: int = 5000,
    seed: int = 0,
) -> TypeContacts:
    """Count which types are said to be neighbours, and compare with types permuted among cells.

    The answers stay with their cells and only the names move: so cells that are called neighbours
    of many, and types that are abundant, make no contact by themselves.

    Args:
        pairs: Rows of the two cells of each pair that was asked about, ``[P, 2]``.
        said: Whether they are neighbours, ``[P]`` bool, or how likely, in [0, 1].
        types: Type of each cell, ``[N]``.
        num_permutations: How often types are dealt; of ``R`` rows none can have a ``q`` below
            ``2 R / num_permutations`` by itself.
        seed: Seed of the dealing.

    Raises:
        ValueError: If sizes do not fit, or there are fewer than two types.

    Examples:
        >>> found = type_contacts([[0, 1], [0, 2], [1, 2]], [True, False, False], ["A", "B", "A"])
        >>> found.table[["type_a", "type_b", "share"]].values.tolist()
        [['A', 'A', 0.0], ['A', 'B', 0.5]]
    """
    code, names = as_types(types)
    ends, answer = np.asarray(pairs, dtype=np.int64), np.asarray(said, dtype=np.float64)
    if ends.ndim != 2 or ends.shape[1] != 2 or answer.shape != (len(ends),) or not len(ends):
        raise ValueError(
            f"Expected an answer for each of some pairs [P, 2], got {list(ends.shape)} and "
            f"{list(answer.shape)}"
        )
    if not (0 <= ends.min() and ends.max() < len(code)):
        raise ValueError(f"Expected rows of {len(code)} cells, got {ends.min()}…{ends.max()}")
    if not ((answer >= 0) & (answer <= 1)).all():
        raise ValueError("Expected answers in [0, 1]: probabilities, not log-odds")
    if len(names) < 2 or num_permutations < 1:
        raise ValueError(
            f"Expected two types or more and a permutation, got {len(names)}, {num_permutations}"
        )
    size = len(names)

    def share(own: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        a, b = np.sort(own[ends], axis=1).T
        key = a * size + b
        num = np.bincount(key, minlength=size**2).astype(float)
        total = np.bincount(key, answer, size**2)
        return np.divide(total, num, out=np.full(size**2, np.nan), where=num > 0), num

    found, num = share(code)
    rng = np.random.default_rng(seed)
    asked = np.flatnonzero(num)
    dealt = np.stack([share(rng.permutation(code))[0][asked] for _ in range(num_permutations)])
    own = found[asked]
    known = np.isfinite(dealt)
    times = known.sum(axis=0)
    mean = np.nansum(dealt, axis=0) / np.maximum(times, 1)
    spread = np.sqrt(np.nansum((dealt - mean) ** 2, axis=0) / np.maximum(times - 1, 1))
    tails = [((side * dealt >= side * own - 1e-12) & known).sum(axis=0) for side in (1, -1)]
    p = np.minimum(1.0, 2 * (1 + np.minimum(*tails)) / (1 + times))
    z = np.divide(own - mean, spread, out=np.zeros(len(own)), where=spread > 0)
    table = pd.DataFrame(
        {
            "type_a": np.array(names, dtype=object)[asked // size],
            "type_b": np.array(names, dtype=object)[asked % size],
            "pairs": num[asked].astype(int),
            "share": own,
            "expected": mean,
            "z": z,
            "p": p,
            "q": false_discovery_control(p),
        }
    )
    return TypeContacts(tuple(names), table)
