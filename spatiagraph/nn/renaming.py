"""Weights that were saved under earlier names."""

from collections.abc import Mapping

from torch import Tensor


def renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Weights by today's names.

    Args:
        tensors: Weights by name.
        names: Earlier start of a name → today's.

    Examples:
        >>> list(renamed({"pool.query": Tensor(), "gate": Tensor()}, {"pool.": "levels.0.pool."}))
        ['levels.0.pool.query', 'gate']
    """
    result = {}
    for key, value in tensors.items():
        old = next((start for start in names if key.startswith(start)), None)
        result[key if old is None else names[old] + key[len(old) :]] = value
    return result
