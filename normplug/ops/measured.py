"""Passes over x for what is measured now and then: powers of its values, the sigmoid's mean."""

import torch
from torch import Tensor

from normplug.precision import working_dtype

__all__ = ['batch_moments_of_powers', 'mean_sigmoid']


def batch_moments_of_powers(x_n: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Mean and E[(x − mean)^k] for k = 2, 3 and 4 over instances and pixels, (C,) of ``dtype``.

    Powers are those of standardized values: those of 1e10, or of 1e-12, are no float32.

    Args:
        x_n: (N, C, *spatial), with or without spatial axes, not empty.
        dtype: of the results.
    """
    dims = _all_but_channels(x_n)
    values = x_n.to(working_dtype(x_n))
    mean = values.mean(dims, keepdim=True)
    centred = values - mean
    second = centred.square().mean(dims, keepdim=True)
    unit = centred * torch.where(second > 0, second, 1).rsqrt()
    std = second.flatten().to(dtype).sqrt()
    third, fourth = (unit.pow(k).mean(dims).to(dtype) * std**k for k in (3, 4))
    return mean.flatten().to(dtype), second.flatten().to(dtype), third, fourth


def mean_sigmoid(y_n: Tensor, dtype: torch.dtype) -> Tensor:
    """The mean of sigmoid(y) over instances and pixels, (C,) of ``dtype``; y as x above."""
    return y_n.sigmoid().mean(_all_but_channels(y_n), dtype=dtype)


def _all_but_channels(x_n: Tensor) -> list[int]:
    return [dim for dim in range(x_n.dim()) if dim != 1]
