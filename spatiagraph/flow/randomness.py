"""Sources of random numbers: one for all samples, or one for each."""

import zlib
from collections.abc import Sequence

import numpy as np
import torch

Randomness = torch.Generator | Sequence[torch.Generator] | None
"""One source for all samples, or one for each, so that samples are independent."""


def named_rng(seed: int, *names: object) -> np.random.Generator:
    """A source that depends on nothing but a seed and some names.

    Args:
        seed: The seed, at least 0.
        *names: What is to be drawn, such as slide and niche.

    Examples:
        >>> first, again, other = (named_rng(0, "slide", name).random() for name in "aab")
        >>> first == again, first == other
        (True, False)
    """
    text = "\n".join(map(str, names))
    return np.random.default_rng([seed, zlib.crc32(text.encode())])


def named_generator(seed: int, *names: object) -> torch.Generator:
    """The same as a source for torch, on the CPU.

    Args:
        seed: The seed, at least 0.
        *names: What is to be drawn.
    """
    return torch.Generator().manual_seed(int(named_rng(seed, *names).integers(2**63)))
