"""Products of matrices with x: by oneDNN where they are large, on a CPU.

``torch.matmul`` calls MKL there, which has no code for AVX-512 on other makers' processors. On
them oneDNN, which torch has too, multiplies float32 in half the time.
"""

from functools import cache

import torch
from torch import Tensor

from normplug.ops.memory import is_plain

__all__ = ['product']

# Multiplications for each thread, from which on a call of oneDNN is worth its overhead.
_LARGE = 2**20


def product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right`` of the same number of axes, 2 or more."""
    if not _is_large(left, right):
        return left @ right
    batch = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    pairs = (t.expand(*batch, *t.shape[-2:]).flatten(0, -3).unbind() for t in (left, right))
    found = [_product(*pair) for pair in zip(*pairs, strict=True)]
    whole = found[0] if len(found) == 1 else torch.stack(found)
    return whole.view(*batch, left.shape[-2], right.shape[-1])


def _is_large(left: Tensor, right: Tensor) -> bool:
    return (
        left.dtype == torch.float32
        and left.shape[-2] * left.shape[-1] * right.shape[-1] >= _LARGE * torch.get_num_threads()
        and is_plain(left)
        and is_plain(right)
        and left.is_cpu
        and torch.backends.mkldnn.enabled
        and _has_linear()
    )


def _product(left: Tensor, right: Tensor) -> Tensor:
    # x · Wᵀ. Of a W that is part of a larger matrix oneDNN (3.10) takes a thousand times as long.
    return torch.ops.mkldnn._linear_pointwise(_dense(left), _dense(right).mT, None, 'none', [], '')


def _dense(t: Tensor) -> Tensor:
    return t if t.is_contiguous() or t.mT.is_contiguous() else t.contiguous()


@cache
def _has_linear() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, '_linear_pointwise')
