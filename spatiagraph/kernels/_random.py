"""Dropout without stored masks: a number that depends only on (seed, edge, head).

Two rounds of a 32-bit finaliser (constants of Chris Wellons' "lowbias32"). Every backend
computes the same bits, so the forward and the backward pass of any of them agree.
"""

import torch
from torch import Tensor

MULTIPLIER_A = 0x7FEB352D
MULTIPLIER_B = 0x846CA68B
HEAD_STEP = 0x9E3779B9
MASK = 0xFFFFFFFF


def threshold(dropout: float) -> int:
    """Hashes below this 32-bit number are dropped."""
    return min(int(round(dropout * 2**32)), MASK)


def split_seed(seed: Tensor | None) -> tuple[int, int]:
    """The low and high 32 bits of a seed."""
    value = 0 if seed is None else int(seed)
    return value & MASK, (value >> 32) & MASK


def keep_scale(
    num_edges: int, heads: int, dropout: float, seed: Tensor | None, *, like: Tensor
) -> Tensor:
    """``1 / (1 - dropout)`` where an edge is kept and 0 where it is dropped, ``[E, H]``."""
    low, high = split_seed(seed)
    edge = torch.arange(num_edges, device=like.device).unsqueeze(1)
    head = torch.arange(heads, device=like.device).unsqueeze(0)
    bits = _mix((_mix((edge & MASK) ^ low) + head * HEAD_STEP & MASK) ^ high)
    return (bits >= threshold(dropout)).to(like.dtype) / (1.0 - dropout)


def _mix(x: Tensor) -> Tensor:
    x = x ^ (x >> 16)
    x = x * MULTIPLIER_A & MASK  # wraps in 64 bits, whose low 32 are right
    x = x ^ (x >> 15)
    x = x * MULTIPLIER_B & MASK
    return x ^ (x >> 16)
