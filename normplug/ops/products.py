"""Products of matrices with x: by oneDNN where they are large, on a CPU.

``torch.matmul`` calls MKL there, which has no code for AVX-512 on other makers' processors. On
them oneDNN, which torch has too, multiplies float32 in half the time.
"""

from functools import cache

import torch
from torch import Tensor

__all__ = ['is_large', 'product']

# Multiplications for each thread, from which on a call of oneDNN is worth its overhead.
_LARGE = 2**20


def is_large(rows: int, columns: int, dtype: torch.dtype) -> bool:
    """Whether (rows, rows) times (rows, columns) on a CPU is for oneDNN, not to be batched."""
    return (
        dtype == torch.float32
        and rows * rows * columns >= _LARGE * torch.get_num_threads()
        and torch.backends.mkldnn.enabled
        and _has_linear()
    )


def product(left: Tensor, right: Tensor, large: bool) -> Tensor:
    """``left @ right`` of two axes or more; one matrix after the other if they are ``large``."""
    if not large:
        return left @ right
    batch = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    ends = left.shape[-2], right.shape[-1]
    pairs = (
        t.expand(*batch, *t.shape[-2:]).reshape(-1, *t.shape[-2:]).unbind() for t in (left, right)
    )
    found = [_product(*pair) for pair in zip(*pairs, strict=True)]
    return (found[0] if len(found) == 1 else torch.stack(found)).view(*batch, *ends)


def _product(left: Tensor, right: Tensor) -> Tensor:
    # x · Wᵀ. Of a W that is part of a larger matrix oneDNN (3.10) takes a thousand times as long.
    return torch.ops.mkldnn._linear_pointwise(_dense(left), _dense(right).mT, None, 'none', [], '')


def _dense(t: Tensor) -> Tensor:
    return t if t.is_contiguous() or t.mT.is_contiguous() else t.contiguous()


@cache
def _has_linear() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, '_linear_pointwise')
