"""Products of matrices with pieces of x on a CPU: by oneDNN where they are large.

``torch.matmul`` calls MKL there, which has no code for AVX-512 on other makers' processors. On
those oneDNN, which torch has too, multiplies float32 in half the time.
"""

from functools import cache
from math import prod

import torch
from torch import Tensor

__all__ = ['product']

# Multiplications for each thread, from which on a call of oneDNN is worth its overhead; and where
# MKL would multiply several matrices, one a thread.
_LARGE, _LARGE_OF_MANY = 2**20, 3 * 2**20


def product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right`` of plain tensors of as many axes, 3 or more, on a CPU."""
    rows, between, columns = *left.shape[-2:], right.shape[-1]
    batch = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    least = (_LARGE if prod(batch) == 1 else _LARGE_OF_MANY) * torch.get_num_threads()
    large = rows * between * columns >= least
    if not (large and left.dtype == torch.float32 and _has_linear()):
        return left @ right
    lefts = _dense(left).expand(*batch, rows, between).flatten(0, -3)
    # Of a transposed matrix that is part of a larger one oneDNN (3.10) takes a thousand times as
    # long: so the whole is dense.
    rights = _dense(right).mT.expand(*batch, columns, between).flatten(0, -3)
    linear = torch.ops.mkldnn._linear_pointwise.default  # x · Wᵀ
    found = [
        linear(x, w, None, 'none', [], '')
        for x, w in zip(lefts.unbind(), rights.unbind(), strict=True)
    ]
    whole = found[0] if len(found) == 1 else torch.stack(found)
    return whole.view(*batch, rows, columns)


def _dense(t: Tensor) -> Tensor:
    return t if t.is_contiguous() or t.mT.is_contiguous() else t.contiguous()


def _has_linear() -> bool:
    return torch.backends.mkldnn.enabled and _is_built()


@cache
def _is_built() -> bool:
    # Where AVX-512 is not the question, nothing says that oneDNN is faster.
    wide = torch.backends.cpu.get_cpu_capability() == 'AVX512'
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, '_linear_pointwise')
    return wide and there
