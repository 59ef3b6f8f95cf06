"""What a tensor is: memory that may be cut and written to, or something that others watch.

A large result is memory that the process gets from the system and gives back at every step, and the
system clears it page by page, on first touch: with pages of 4 KiB that takes several times as long
as the pass itself. Linux has pages of 2 MiB for those who ask (``madvise``); asking is a hint only.
"""

import ctypes
import mmap
import sys

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ['is_exporting', 'is_plain', 'is_transformed', 'on_gpu', 'result_like']

_HUGE_PAGE = 2**21  # bytes
# Bytes from which on malloc surely takes fresh memory (glibc's largest mmap threshold). Below, it
# mostly has memory in use before, which is in pages already.
_FRESH = 2**25
_MADV_HUGEPAGE = getattr(mmap, 'MADV_HUGEPAGE', None)


def is_plain(x: Tensor) -> bool:
    """Whether x may be cut, written to, and given to compiled code.

    Not where somebody else sees to the operators, or to what they return: a compiler that traces,
    a subclass of Tensor, a dispatch mode (fake tensors, selective checkpointing), vmap, autograd.
    """
    return (
        type(x) in (Tensor, torch.nn.Parameter)
        and not torch.compiler.is_compiling()
        and torch._C._len_torch_dispatch_stack() == 0
        and not torch._C._dispatch_tls_is_dispatch_key_included('VmapMode')
        and not is_transformed()
        and not (x.requires_grad and torch.is_grad_enabled())
    )


def is_transformed() -> bool:
    """Whether a transform of ``torch.func``, or forward-mode differentiation, is under way.

    Dynamo, which sees a stack of its own, is none.
    """
    return not torch.compiler.is_compiling() and (
        torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0
    )


def on_gpu(x: Tensor) -> bool:
    """Whether code for x is Triton's."""
    return x.is_cuda


@torch.compiler.assume_constant_result
def is_exporting() -> bool:
    """Whether ``torch.export``, an ONNX exporter or ``torch.jit.trace`` records this forward.

    Dynamo would answer ``torch.compiler.is_exporting`` by True in ``torch.compile`` too (torch
    2.11), so it is made to call this function and to keep the answer for the graph.
    """
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


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
