"""Moments of the output map of a convolution whose input is independent noise."""

from functools import lru_cache, reduce
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
    """Return mean and expected biased variance of each output channel over one output map.

    The input is a map of independent values with the moments of their channel. Then, of output
    channel o with P positions, tap t standing for input channel and offset, and sums over the taps
    that do not fall into the zero padding,

        mean = avg_p Σ_t w_t m_t,
        var = avg_p Σ_t w_t² v_t  +  Var_p(Σ_t w_t m_t)  −  Var(avg_p Σ_t w_t x_{p,t}).

    The first term of the variance is the limit for large maps. The second comes from the border,
    which has a different mean. The third is the variance of the map's mean, which the map's own
    variance does not contain. (If padding repeats a value, two taps may see the same one: their
    weights are added before they are squared.)

    Args:
        conv: any stride, padding, dilation and number of groups; its bias shifts the mean.
        moments: (..., C_in), float64.
        size: spatial size of the input.

    Returns:
        (..., C_out), float64, differentiable in the moments and the convolution's parameters.
    """
    cover = _coverage(tuple(map(_plain, _axes(conv, size))), conv.weight.device)
    weight = conv.weight.flatten(2).to(working_dtype(conv.weight)).unflatten(0, (conv.groups, -1))
    rows = [torch.atleast_2d(t).unflatten(1, (conv.groups, -1)).transpose(0, 1) for t in moments]
    shape = (*moments.mean.shape[:-1], conv.out_channels)
    mean, var = (t.flatten(0, 1).T.reshape(shape) for t in _Sums.apply(weight, *rows, cover))
    return Moments(mean if conv.bias is None else mean + conv.bias.double(), var)


class _Coverage(NamedTuple):
    """Which values the taps see, over all output positions; float64.

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
    """The sums of :func:`convolved`, with as few passes over the weights as possible.

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


# Steps for a backend. Tensors as large as the weights have their dtype, all others are float64.
def _sums(
    weight: Tensor, mean: Tensor, var: Tensor, cover: _Coverage
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return both results and, for backward, Σ_i w m by tap (G, O, R, T) and w V w (G, O, I)."""
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
    """Return the gradients of weight (if it needs one), mean and var."""
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
    """Return moments of the convolution of one random map per group, (groups, C_in, *size)."""
    # Not a call of the module: its hooks and the code of subclasses are followed separately.
    kind = next(cls for cls in (nn.Conv1d, nn.Conv2d, nn.Conv3d) if isinstance(conv, cls))
    y_n = kind._conv_forward(conv, x_n.to(conv.weight.dtype), conv.weight, conv.bias).double()
    axes = tuple(range(2, y_n.dim()))
    var, mean = torch.var_mean(y_n, axes, correction=0)
    return Moments(mean, var)


def working_dtype(weight: Tensor) -> torch.dtype:
    """Return float64 for float64, else float32: only large tensors are in half precision."""
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


def _plain(axis: _Axis) -> _Axis:
    """The same for one tap without padding, whatever the stride: one value a position."""
    if axis.kernel > 1 or axis.left or axis.right:
        return axis
    return _Axis(axis.positions(), 1, 1, 1, 0, 0, 'zeros')


@lru_cache(4096)
def _coverage(axes: tuple[_Axis, ...], device: torch.device) -> _Coverage:
    # Computed on the device from plain numbers: no copy, and no wait for a new size.
    seen = any(axis.padding == 'zeros' and (axis.left or axis.right) for axis in axes)
    where = torch.empty(1, dtype=torch.float64, device=device)
    share, border, variance = run(_covered, where, axes)
    return _Coverage(share, border if seen else None, variance)


def _covered(where: Tensor, axes: tuple[_Axis, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """The fields of :class:`_Coverage`, on the device of ``where``: a step for a backend."""
    parts = zip(*(_coverage_of_axis(axis, where) for axis in axes), strict=True)
    together, same, by_value = (reduce(_kron, part) for part in parts)
    share = together.diagonal()
    square = 1
    for axis in axes:
        square = square * axis.positions() ** 2
    return share.clone(), together - share.outer(share), same - by_value / square


def _coverage_of_axis(axis: _Axis, where: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the matrices of one axis, (taps, taps) each; all axes are their Kronecker product.

    Returns:
        The share of positions at which two taps both see a value; at which they see the same one;
        and at how many pairs of positions they see the same one.
    """
    if axis.padding != 'zeros':
        return _coverage_of_repeated(axis, where)
    last = axis.positions() - 1
    # Tap a sees value p · stride + start_a at position p, if there is one.
    start = torch.arange(axis.kernel, device=where.device) * axis.dilation - axis.left
    low = (axis.stride - 1 - start).div(axis.stride, rounding_mode='floor').clamp(min=0)
    high = (axis.size - 1 - start).div(axis.stride, rounding_mode='floor').clamp(max=last)

    def between(low: Tensor, high: Tensor) -> Tensor:
        return (high - low + 1).clamp(min=0).to(where.dtype)

    low_a, high_a, start_a = (t.unsqueeze(1) for t in (low, high, start))
    together = between(torch.maximum(low_a, low), torch.minimum(high_a, high)) / (last + 1)
    # What a sees at p, b sees `later` positions later, if it is in step with a.
    later = (start_a - start).div(axis.stride, rounding_mode='floor')
    pairs = between(torch.maximum(low_a, low - later), torch.minimum(high_a, high - later))
    in_step = later * axis.stride == start_a - start
    return together, together * (start_a == start), pairs * in_step


def _coverage_of_repeated(axis: _Axis, where: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`_coverage_of_axis`, for padding that repeats values: each tap always sees one."""
    positions = torch.arange(axis.positions(), device=where.device)
    taps = torch.arange(axis.kernel, device=where.device)
    i = positions.unsqueeze(1) * axis.stride - axis.left + taps * axis.dilation
    last = axis.size - 1
    if axis.padding == 'circular':
        i = i % axis.size
    elif axis.padding == 'replicate':
        i = i.clamp(0, last)
    else:
        i = last - (last - i.abs()).abs()
    same = (i.unsqueeze(2) == i.unsqueeze(1)).to(where.dtype).mean(0)
    times = where.new_zeros(axis.size, axis.kernel).scatter_add(
        0, i, torch.ones_like(i, dtype=where.dtype)
    )
    return torch.ones_like(same), same, times.T @ times


def _kron(a: Tensor, b: Tensor) -> Tensor:
    """Return the Kronecker product; torch.kron fails on some strides."""
    return (a[:, None, :, None] * b[:, None]).flatten(2).flatten(0, 1)
