"""Counter-based random numbers in compiled loops, independent of threads and workers."""

import numpy as np
from numba import njit

STEP = np.uint64(0x9E3779B97F4A7C15)
"""From one number of a counter to the next."""
_A, _B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)


@njit(cache=True, nogil=True)
def mixed(z: np.uint64) -> np.uint64:
    """A well-spread 64-bit number of a counter (splitmix64)."""
    z = (z ^ (z >> _S30)) * _A
    z = (z ^ (z >> _S27)) * _B
    return z ^ (z >> _S31)


@njit(cache=True, nogil=True)
def fraction(z: np.uint64) -> float:
    """A number in [0, 1) of a counter."""
    return (mixed(z) >> _S11) / 9007199254740992.0


@njit(cache=True, nogil=True)
def below(z: np.uint64, num: int) -> np.int64:
    """A whole number below ``num`` of a counter."""
    return np.int64(mixed(z) % np.uint64(num))


@njit(cache=True, nogil=True)
def permutation(num: int, seed: np.uint64) -> np.ndarray:
    """A random order of ``num`` things."""
    order = np.arange(num)
    state = seed
    for i in range(num - 1, 0, -1):
        state += STEP
        j = below(state, i + 1)
        order[i], order[j] = order[j], order[i]
    return order
