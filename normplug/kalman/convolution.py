"""Moments of a convolution's output over its map, of an input that is independent noise."""

from functools import lru_cache, reduce
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from normplug.stats import Moments

__all__ = ['convolved', 'convolved_sample', 'output_size']

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d


def output_size(conv: Conv, size: tuple[int, ...]) -> tuple[int, ...]:
    """Spatial size of the output for an input of spatial size ``size``."""
    return tuple(axis.positions() for axis in _axes(conv, size))


def convolved(conv: Conv, moments: Moments, size: tuple[int, ...]) -> Moments:
    """Mean and expected biased variance, over one output map, of each output channel.

    The input is a map of independent values with the moments of their channel. Then, of output
    channel o with P positions, tap t standing for input channel and offset, and sums over the taps
    that do not fall into the zero padding,

        mean = avg_p Σ_t w_t m_t,
        var = avg_p Σ_t w_t² v_t  +  Var_p(Σ_t w_t m_t)  −  Var(avg_p Σ_t w_t x_{p,t}).

    The first term of the variance is the limit for large maps; the second is the border's, whose
    mean is another; the third is the variance of the map's mean, which the map's own variance
    does not contain. (Where padding repeats a value, two taps may see the same one: their weights
    are added before they are squared.)

    Args:
        conv: any stride, padding, dilation and number of groups; its bias shifts the mean.
        moments: (..., C_in), float64.
        size: spatial size of the input.

    Returns:
        (..., C_out), float64, differentiable in the moments and the convolution's parameters.
    """
    mean, var = moments
    weight = conv.weight.flatten(2).to(working_dtype(conv.weight))  # (C_out, C_in / groups, taps)
    axes = _axes(conv, size)
    cover, positions = _coverage(axes, weight.device), prod(axis.positions() for axis in axes)
    # Over the taps in the weights' precision, over the channels in that of the moments.
    to_mean = (weight * cover.share.to(weight.dtype)).sum(-1).double()
    of_mean = (weight @ cover.by_value.to(weight.dtype)).square().sum(-1)
    if cover.same is None:
        large = (weight.square() * cover.share.to(weight.dtype)).sum(-1)
    else:
        large = ((weight @ cover.same.to(weight.dtype)) * weight).sum(-1)
    to_var = (large - of_mean / positions**2).double()
    out_mean = _over_channels(conv, mean, to_mean)
    out_var = _over_channels(conv, var, to_var)
    if cover.together is not None:
        by_tap = _over_channels(conv, mean, weight.double())  # (..., C_out, taps)
        square = ((by_tap @ cover.together) * by_tap).sum(-1)
        out_var = out_var + (square - out_mean.square())
    if conv.bias is not None:
        out_mean = out_mean + conv.bias.double()
    return Moments(out_mean, out_var.clamp(min=0))


def convolved_sample(conv: Conv, x_n: Tensor) -> Moments:
    """Moments of the convolution of one drawn map a group, (groups, C_in, *size)."""
    y_n = conv(x_n.to(conv.weight.dtype)).double()
    axes = tuple(range(2, y_n.dim()))
    var, mean = torch.var_mean(y_n, axes, correction=0)
    return Moments(mean, var)


def working_dtype(weight: Tensor) -> torch.dtype:
    """Float64 for float64, else float32: half precision is for the large tensors."""
    return torch.float64 if weight.dtype == torch.float64 else torch.float32


def _over_channels(conv: Conv, value: Tensor, matrix: Tensor) -> Tensor:
    """Σ_c matrix[o, c, ...] · value[..., c] over the input channels c of o's group."""
    apart = value.unflatten(-1, (conv.groups, -1))
    matrix = matrix.unflatten(0, (conv.groups, -1))  # (groups, C_out / groups, C_in / groups, ...)
    if matrix.dim() == 3:
        return torch.einsum('...gc,goc->...go', apart, matrix).flatten(-2)
    return torch.einsum('...gc,goct->...got', apart, matrix).flatten(-3, -2)


class _Axis(NamedTuple):
    """One spatial axis of a convolution and its input."""

    size: int
    kernel: int
    stride: int
    dilation: int
    left: int
    right: int
    padding: str

    def positions(self) -> int:
        reach = self.dilation * (self.kernel - 1) + 1
        return (self.size + self.left + self.right - reach) // self.stride + 1


def _axes(conv: Conv, size: tuple[int, ...]) -> tuple[_Axis, ...]:
    axes = []
    for i, n in enumerate(size):
        kernel, stride, dilation = conv.kernel_size[i], conv.stride[i], conv.dilation[i]
        if conv.padding == 'same':
            left = dilation * (kernel - 1) // 2
            right = dilation * (kernel - 1) - left
        else:
            left = right = 0 if conv.padding == 'valid' else conv.padding[i]
        axes.append(_Axis(n, kernel, stride, dilation, left, right, conv.padding_mode))
    return tuple(axes)


def _values_seen(axis: _Axis) -> Tensor:
    """(positions, taps), the index of the value that each tap sees; −1 for zero padding."""
    start = torch.arange(axis.positions()) * axis.stride - axis.left
    i = start.unsqueeze(1) + torch.arange(axis.kernel) * axis.dilation
    last = axis.size - 1
    if axis.padding == 'circular':
        return i % axis.size
    if axis.padding == 'replicate':
        return i.clamp(0, last)
    if axis.padding == 'reflect':
        return last - (last - i.abs()).abs()
    return torch.where((i >= 0) & (i <= last), i, -1)


class _Coverage(NamedTuple):
    """What the taps see, over all output positions; float64.

    Attributes:
        share: (taps,), the share of positions at which a tap sees a value.
        together: (taps, taps), at which two taps do; None where all always do.
        same: (taps, taps), at which they see the same value; None where no two ever do.
        by_value: (taps, kinds of values), how often a value is seen by each tap, times the square
            root of the number of values of that kind.
    """

    share: Tensor
    together: Tensor | None
    same: Tensor | None
    by_value: Tensor


@lru_cache(4096)
def _coverage(axes: tuple[_Axis, ...], device: torch.device) -> _Coverage:
    parts = [_coverage_of_axis(axis) for axis in axes]
    together, same, by_value = zip(*parts, strict=True)
    together, same = reduce(torch.kron, together), reduce(torch.kron, same)
    share = together.diagonal().clone()
    return _Coverage(
        share.to(device),
        None if bool(together.eq(1).all()) else together.to(device),
        None if torch.equal(same, share.diag()) else same.to(device),
        # The columns of all axes in all combinations.
        reduce(torch.kron, by_value).to(device),
    )


@lru_cache(4096)
def _coverage_of_axis(axis: _Axis) -> tuple[Tensor, Tensor, Tensor]:
    """``together``, ``same`` and ``by_value`` of one axis."""
    values = _values_seen(axis)
    count = len(values)
    seen = (values >= 0).double()
    together = (seen.T @ seen) / count
    same = (values.unsqueeze(2) == values.unsqueeze(1)) & (values >= 0).unsqueeze(2)
    times = torch.zeros(axis.size + 1, axis.kernel, dtype=torch.long)
    taps = torch.arange(axis.kernel).expand_as(values)
    times.index_put_((values % (axis.size + 1), taps), torch.ones_like(values), accumulate=True)
    kinds, counts = times[:-1].unique(dim=0, return_counts=True)
    return together, same.double().mean(0), kinds.T * counts.double().sqrt()
