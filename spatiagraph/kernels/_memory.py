"""Large tensors in huge pages."""

import ctypes
import mmap
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

HUGE_PAGES_FROM = 2**23  # bytes


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """New memory, in huge pages if it is large.

    On Linux the first touch of fresh memory costs more than the kernels themselves, page by page.
    """
    out = torch.empty(shape, dtype=dtype)
    if out.nbytes >= HUGE_PAGES_FROM and (advise := _madvise()) is not None:
        start = -(-out.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (out.data_ptr() + out.nbytes - start) // mmap.PAGESIZE * mmap.PAGESIZE
        advise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_HUGEPAGE)
    return out


@cache
def _madvise() -> Callable[..., int] | None:
    """The system's advice on memory; ``None`` where there are no huge pages to ask for."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    return ctypes.CDLL(None).madvise
