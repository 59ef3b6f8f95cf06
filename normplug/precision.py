"""How precise what is computed is: statistics, float64 where there is; values, float32."""

from functools import cache

import torch
from torch import Tensor

__all__ = ['small_dtype', 'working_dtype']


def working_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which values of x's size are worked on: float64 for float64, else float32."""
    # Not torch.promote_types, which would be a node of an export.
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def small_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of small tensors that belong to ``x``: moments, rule, sums over ranks.

    It is float64, or float32 if the device of x has no float64: Apple's GPUs (MPS), some of
    Intel's (XPU), and under a dispatch mode that refuses it. In float32, means are rounded, which
    changes the output by some 2⁻²⁴ · |mean|/std, as in torch's own norms; and counts of more than
    2²⁴ values per channel are rounded.
    """
    if x.dtype == torch.float64:
        return torch.float64
    if not torch.compiler.is_compiling() and torch._C._len_torch_dispatch_stack() > 0:
        return torch.float64 if _is_made(x.device) else torch.float32
    return torch.float64 if _has_float64(x.device) else torch.float32


def _is_made(device: torch.device) -> bool:
    try:
        torch.empty((), dtype=torch.float64, device=device)
    except (TypeError, RuntimeError, NotImplementedError):
        return False
    return True


@cache
@torch.compiler.assume_constant_result
def _has_float64(device: torch.device) -> bool:
    if device.type == 'xpu':
        return torch.xpu.get_device_properties(device).has_fp64
    return device.type != 'mps'
