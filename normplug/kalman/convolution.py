"""Moments of a convolution's output over its map, of an input that is independent noise."""

from functools import lru_cache, reduce
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from normplug.ops.backend import run
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
    cover = _coverage(_axes(conv, size), conv.weight.device)
    weight = conv.weight.flatten(2).to(working_dtype(conv.weight)).unflatten(0, (conv.groups, -1))
    rows = [torch.atleast_2d(t).unflatten(1, (conv.groups, -1)).transpose(0, 1) for t in moments]
    shape = (*moments.mean.shape[:-1], conv.out_channels)
    mean, var = (t.flatten(0, 1).T.reshape(shape) for t in _Sums.apply(weight, *rows, cover))
    return Moments(mean if conv.bias is None else mean + conv.bias.double(), var)


class _Coverage(NamedTuple):
    """What the taps see, over all output positions; float64.

    Attributes:
        share: (taps,), the share of positions at which a tap sees a value.
        border: (taps, taps), the covariance of two taps' seeing one; None where all always do.
        variance: (taps, taps), V with w V w the first and the last term of the variance, for one
            input channel of variance 1.
    """

    share: Tensor
    border: Tensor | None
    variance: Tensor


class _Sums(torch.autograd.Function):
    """The sums of :func:`convolved`, with as few passes over the weights as there can be.

    Tensors: weight (G, O, I, T) of G groups of channels and T taps; mean and var (G, R, I) of R
    groups of images; both results (G, O, R).
    """

    @staticmethod
    def forward(ctx, weight, mean, var, cover):
        *sums, by_tap, of_var = run(_sums, weight, mean, var, cover)
        ctx.save_for_backward(weight, mean, var, by_tap, of_var)
        ctx.cover = cover
        return tuple(sums)

    @staticmethod
    def backward(ctx, to_mean, to_var):
        *inputs, by_tap, of_var = ctx.saved_tensors
        upstream = (ctx.cover, to_mean, to_var, ctx.needs_input_grad[0])
        if not torch.compiler.is_compiling() and torch.is_grad_enabled():  # create_graph=True
            *_, by_tap, of_var = _sums(*inputs, ctx.cover)
            return *_sums_backward(*inputs, by_tap, of_var, *upstream), None
        return *run(_sums_backward, *inputs, by_tap, of_var, *upstream), None


# Steps for a backend. What is as large as the weights is in their precision, all else in float64.
def _sums(
    weight: Tensor, mean: Tensor, var: Tensor, cover: _Coverage
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both results; for backward, Σ_i w m by tap (G, O, R, T), and w V w (G, O, I)."""
    like = weight.dtype
    by_tap = torch.matmul(mean.to(like).unsqueeze(1), weight).double()
    of_var = (_times(weight, cover.variance) * weight).sum(-1)
    out_var = torch.matmul(of_var, var.to(like).transpose(1, 2)).double()
    if cover.border is not None:
        out_var = out_var + ((by_tap @ cover.border) * by_tap).sum(-1)
    return by_tap @ cover.share, out_var.clamp(min=0), by_tap, of_var


def _sums_backward(
    weight: Tensor,
    mean: Tensor,
    var: Tensor,
    by_tap: Tensor,
    of_var: Tensor,
    cover: _Coverage,
    to_mean: Tensor,
    to_var: Tensor,
    needs_weight: bool,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients of weight, if it needs one, mean and var."""
    like = weight.dtype
    to_tap = to_mean.unsqueeze(-1) * cover.share
    if cover.border is not None:
        to_tap = to_tap + 2 * to_var.unsqueeze(-1) * (by_tap @ cover.border)
    to_tap, to_var = to_tap.to(like), to_var.to(like)
    to_in_mean = torch.matmul(to_tap, weight.transpose(2, 3)).sum(1).double()
    to_in_var = torch.matmul(to_var.transpose(1, 2), of_var).double()
    if not needs_weight:
        return None, to_in_mean, to_in_var
    to_weight = torch.matmul(mean.to(like).transpose(1, 2).unsqueeze(1), to_tap)
    to_of_var = torch.matmul(to_var, var.to(like)).unsqueeze(-1)
    to_weight = to_weight + 2 * to_of_var * _times(weight, cover.variance)
    return to_weight, to_in_mean, to_in_var


def _times(weight: Tensor, matrix: Tensor) -> Tensor:
    matrix = matrix.to(weight.dtype)
    return weight * matrix if matrix.numel() == 1 else weight @ matrix


def convolved_sample(conv: Conv, x_n: Tensor) -> Moments:
    """Moments of the convolution of one drawn map a group, (groups, C_in, *size)."""
    # Not a call of the module: its hooks, and what a subclass adds, are followed by themselves.
    kind = next(cls for cls in (nn.Conv1d, nn.Conv2d, nn.Conv3d) if isinstance(conv, cls))
    y_n = kind._conv_forward(conv, x_n.to(conv.weight.dtype), conv.weight, conv.bias).double()
    axes = tuple(range(2, y_n.dim()))
    var, mean = torch.var_mean(y_n, axes, correction=0)
    return Moments(mean, var)


def working_dtype(weight: Tensor) -> torch.dtype:
    """Float64 for float64, else float32: half precision is for the large tensors."""
    return torch.float64 if weight.dtype == torch.float64 else torch.float32


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


@lru_cache(4096)
def _coverage(axes: tuple[_Axis, ...], device: torch.device) -> _Coverage:
    parts = zip(*(_coverage_of_axis(axis) for axis in axes), strict=True)
    together, same, by_value = (reduce(_kron, part) for part in parts)
    share = together.diagonal().clone()
    border = together - share.outer(share)
    return _Coverage(
        share.to(device),
        border.to(device) if border.any() else None,
        (same - by_value @ by_value.T / prod(axis.positions() for axis in axes) ** 2).to(device),
    )


@lru_cache(4096)
def _coverage_of_axis(axis: _Axis) -> tuple[Tensor, Tensor, Tensor]:
    """Of one axis: what all axes' are Kronecker products of.

    Returns:
        (taps, taps), the share of positions at which two taps both see a value; at which they see
        the same one; and (taps, kinds), how often a value is seen by each tap, times the square
        root of the number of values of that kind.
    """
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


def _kron(a: Tensor, b: Tensor) -> Tensor:
    """The Kronecker product; torch's fails on some strides."""
    return (a[:, None, :, None] * b[:, None]).flatten(2).flatten(0, 1)
