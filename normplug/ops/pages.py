"""Memory for what a pass writes, on a CPU in huge pages where that pays.

A large result is memory that the process gets from the system and gives back at every step, and the
system clears it page by page, on first touch: with pages of 4 KiB that takes several times as long
as the pass itself. Linux has pages of 2 MiB for those who ask (``madvise``); asking is a hint only.
"""

import ctypes
import mmap
import sys

import torch
from torch import Tensor

from normplug.ops.plain import is_plain

__all__ = ['result_like']

_HUGE_PAGE = 2**21  # bytes
# Bytes from which on malloc surely takes fresh memory (glibc's largest mmap threshold). Below, it
# mostly has memory in use before, which is in pages already.
_FRESH = 2**25
_MADV_HUGEPAGE = getattr(mmap, 'MADV_HUGEPAGE', None)


def result_like(x: Tensor) -> Tensor | None:
    """Memory for a result of x's shape, dtype and layout (dense).

    None where x is not plain: whoever computes the result then allocates it.
    """
    if not is_plain(x):
        return None
    result = torch.empty_like(x)
    if x.is_cpu and result.nbytes >= _FRESH and _madvise is not None:
        start = -(-result.data_ptr() // _HUGE_PAGE) * _HUGE_PAGE
        stop = (result.data_ptr() + result.nbytes) // _HUGE_PAGE * _HUGE_PAGE
        _madvise(start, stop - start, _MADV_HUGEPAGE)
    return result


def _of_the_system() -> ctypes._CFuncPtr | None:
    if sys.platform != 'linux' or _MADV_HUGEPAGE is None:
        return None
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    return madvise


_madvise = _of_the_system()
