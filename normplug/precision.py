"""How precise what is computed is: statistics float64 on a CPU; the rest, and on GPUs, float32."""

from functools import cache

import torch
from torch import Tensor

__all__ = ['small_dtype', 'working_dtype']

# Types of device on which small tensors are float64: those where that takes no time.
_IN_FLOAT64 = frozenset({'cpu', 'meta'})


def working_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which values of x's size are worked on: float64 for float64, else float32."""
    # Not torch.promote_types, which would be a node of an export.
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def small_dtype(x: Tensor, exact: bool = False) -> torch.dtype:
    """Return the dtype of small tensors that belong to ``x``: moments, rule, sums over ranks.

    It is float64 on a CPU and float32 on a GPU, where a few blocks of threads compute the rule, and
    wait for each operation: float64 takes longer there even if the card has many units for it. In
    float32, means are rounded, which changes the output by some 2⁻²⁴ · |mean|/std, as in torch's
    own norms; and counts of more than 2²⁴ values per channel are rounded.

    Args:
        x: what the small tensors belong to.
        exact: whether to take float64 on each device that has it: for what ranks exchange, whose
            devices may differ, for predictions of KN, and for population statistics. Apple's GPUs
            (MPS) and some of Intel's (XPU) have none; a dispatch mode may refuse it.
    """
    if x.dtype == torch.float64:
        return torch.float64
    if not exact and x.device.type not in _IN_FLOAT64:
        return torch.float32
    if not torch.compiler.is_compiling() and torch._C._len_torch_dispatch_stack() > 0:
        has_float64 = _is_made(x.device)
    else:
        has_float64 = _has_float64(x.device)
    return torch.float64 if has_float64 else torch.float32


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
