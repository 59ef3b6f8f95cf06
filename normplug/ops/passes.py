"""The four passes over the full tensor, in plain torch: what Inductor compiles for a CPU.

Names end in a tensor's axes: ``x_n`` stands for (N, C, *spatial) with 1 to 3 spatial axes,
``mean_nc`` for (N, C). Full-size tensors are worked on in float32, float64 for float64 input,
and come out in x's dtype; moments come out in float64, sums as they were worked on.
"""

import torch
from torch import Tensor

from normplug.precision import working_dtype
from normplug.stats import Moments

__all__ = [
    'affine',
    'backward_input',
    'backward_reduce',
    'cast',
    'moments',
    'pixels_of',
    'taken',
]


def pixels_of(x_n: Tensor) -> int:
    """H·W, the number of values per instance and channel."""
    pixels = 1
    for size in x_n.shape[2:]:
        pixels *= size
    return pixels


def taken(t_nc: Tensor, x_n: Tensor) -> Tensor:
    """``t_nc`` as the passes over x take it: in their precision.

    Where Inductor sees it, in memory of its own: what a tensor was copied to is a buffer for it
    too. Only converted, it may become a part of the loop over the pixels, with all arithmetic that
    leads to it.
    """
    dtype = working_dtype(x_n)
    if type(t_nc) is Tensor:
        return t_nc.to(dtype)
    return torch.empty_like(t_nc, dtype=dtype).copy_(t_nc)


def _accumulate(x_n: Tensor) -> Tensor:
    return cast(x_n, working_dtype(x_n))


def cast(x_n: Tensor, dtype: torch.dtype) -> Tensor:
    """``x_n`` in a dtype; itself where it has it."""
    # Not a bare .to(): where it does nothing it returns the same tensor, and then Dynamo (torch
    # 2.11) sees y twice among the outputs of our autograd Function and drops y's gradient.
    return x_n if x_n.dtype == dtype else x_n.to(dtype)


def _spatial(x_n: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x_n.dim()))


def _broadcast(t_nc: Tensor, x_n: Tensor) -> Tensor:
    return t_nc.reshape(t_nc.shape + (1,) * (x_n.dim() - 2))


def moments(x_n: Tensor, dtype: torch.dtype = torch.float64) -> Moments:
    """Mean and biased variance over the spatial axes, each (N, C), given as ``dtype``.

    x is centred at the mean of its first sixteenth, so that it is read once, not twice. That
    mean is off by at most sqrt(16 · variance), whatever x is (the first part alone would give
    it more variance otherwise): the difference below loses at most log10(17) digits.
    """
    x_n = _accumulate(x_n)
    # At least 2 pixels, if there are: a slice of 1 would be a case of its own to compile.
    first = x_n[:, :, : (x_n.shape[2] + 31) // 16]
    about_nc = first.mean(_spatial(x_n))
    centred = x_n - _broadcast(about_nc, x_n)
    rest_nc = centred.mean(_spatial(x_n))
    # torch.var_mean is as exact, but takes five times as long on a CPU.
    var_nc = centred.square().mean(_spatial(x_n)) - rest_nc.square()
    return Moments(about_nc.to(dtype) + rest_nc, var_nc.clamp(min=0).to(dtype))


def affine(
    x_n: Tensor,
    mean_nc: Tensor,
    scale_nc: Tensor,
    offset_nc: Tensor,
    out_n: Tensor | None = None,
) -> Tensor:
    """(x − mean) · scale + offset, in x's dtype and memory format, or written to ``out_n``."""
    centred = _accumulate(x_n) - _broadcast(mean_nc, x_n)
    y_n = centred * _broadcast(scale_nc, x_n) + _broadcast(offset_nc, x_n)
    return cast(y_n, x_n.dtype) if out_n is None else out_n.copy_(y_n)


def backward_reduce(dy_n: Tensor, x_n: Tensor, mean_nc: Tensor) -> tuple[Tensor, Tensor]:
    """Σ dy and Σ dy · (x − mean) over the spatial axes, each (N, C)."""
    dy_n = _accumulate(dy_n)
    centred = _accumulate(x_n) - _broadcast(mean_nc, x_n)
    return dy_n.sum(_spatial(x_n)), (dy_n * centred).sum(_spatial(x_n))


def backward_input(
    dy_n: Tensor,
    x_n: Tensor,
    mean_nc: Tensor,
    scale_nc: Tensor,
    slope_nc: Tensor,
    level_nc: Tensor,
    out_n: Tensor | None = None,
) -> Tensor:
    """dy · scale + (x − mean) · slope + level, in x's dtype and layout, or written to ``out_n``."""
    centred = _accumulate(x_n) - _broadcast(mean_nc, x_n)
    through_stats = centred * _broadcast(slope_nc, x_n) + _broadcast(level_nc, x_n)
    dx_n = _accumulate(dy_n) * _broadcast(scale_nc, x_n) + through_stats
    return cast(dx_n, x_n.dtype) if out_n is None else out_n.copy_(dx_n)
