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
    """The dtype of what is small beside ``x``: moments, the rule, sums over ranks.

    Float64. It is float32 where x's device has none: Apple's GPUs (MPS), some of Intel's (XPU),
    and under a dispatch mode that refuses it. There, what is lost is the rounding of the means,
    some 2⁻²⁴ · |mean|/std of the output, as in torch's own norms; and running statistics of more
    than 2²⁴ values a channel count them up to rounding.
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
