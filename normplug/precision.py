"""How precise what is computed is: statistics, float64 where it is fast; values, float32."""

from functools import cache

import torch
from torch import Tensor

__all__ = ['FAST_FLOAT64', 'small_dtype', 'working_dtype']

# Compute capabilities of which float64 has half the rate of float32, not 1/32 or 1/64: data-centre
# cards, by the table of arithmetic instructions in NVIDIA's CUDA C++ Programming Guide.
FAST_FLOAT64 = frozenset({(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)})


def working_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which values of x's size are worked on: float64 for float64, else float32."""
    # Not torch.promote_types, which would be a node of an export.
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def small_dtype(x: Tensor, exact: bool = False) -> torch.dtype:
    """Return the dtype of small tensors that belong to ``x``: moments, rule, sums over ranks.

    It is float64, or float32 if the device of x has no float64: Apple's GPUs (MPS), some of
    Intel's (XPU), and under a dispatch mode that refuses it; or a slow one: NVIDIA's GPUs but
    those of data centres. In float32, means are rounded, which changes the output by some
    2⁻²⁴ · |mean|/std, as in torch's own norms; and counts of more than 2²⁴ values per channel are
    rounded.

    Args:
        x: what the small tensors belong to.
        exact: whether to take a slow float64 too: for what ranks exchange, whose devices may
            differ, and for predictions of KN.
    """
    if x.dtype == torch.float64:
        return torch.float64
    if not torch.compiler.is_compiling() and torch._C._len_torch_dispatch_stack() > 0:
        has_float64 = _is_made(x.device)
    else:
        has_float64 = _has_float64(x.device)
    return torch.float64 if has_float64 and (exact or _is_fast(x.device)) else torch.float32


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


@cache
@torch.compiler.assume_constant_result
def _is_fast(device: torch.device) -> bool:
    """Whether float64 is fast on the device, if it has it."""
    # ROCm's devices are 'cuda' too, with numbers of their own; fake tensors need no GPU.
    if device.type != 'cuda' or torch.version.hip or not torch.cuda.is_available():
        return True
    return torch.cuda.get_device_capability(device) in FAST_FLOAT64
