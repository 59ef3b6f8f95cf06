"""Algebra of means and variances: pool them over an axis, merge them over ranks, mix them.

Everything here works on small tensors ((N, C) and less), in plain differentiable torch.
Variances are pooled by the law of total variance, var = mean(var) + var(mean), and never as
E[x²] − E[x]², which loses all digits once |mean|/std reaches the inverse of the precision.
"""

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ['Affine', 'Moments', 'merge', 'mix', 'pack', 'pool', 'standardize']


class Moments(NamedTuple):
    """Mean and (biased) variance, two tensors of one shape."""

    mean: Tensor
    var: Tensor


class Affine(NamedTuple):
    """The map y = (x − mean_nc) · scale + offset, where mean_nc is the instance mean.

    Giving the offset at the instance mean, not at 0, keeps the output and all gradients free of
    the cancellation between mean · scale and shift when |mean|/std is large.
    """

    scale: Tensor
    offset: Tensor


def pool(moments: Moments, dim: int, keepdim: bool = False) -> Moments:
    """Return the moments of the union of the equally large sets along ``dim``.

    ``dim=0`` of (N, C) instance moments gives batch moments, ``dim=1`` layer moments.
    """
    means, about = moments.mean, None
    if means.dtype != torch.float64:
        # About one of them: of a sum of large values float32 would keep few digits. That one is off
        # by at most sqrt(K) standard deviations of the union. A constant: whatever it is, the
        # result is the same.
        about = means.narrow(dim, 0, 1).detach()
        means = means - about
    mean = means.mean(dim, keepdim=True)
    var = (moments.var + (means - mean).square()).mean(dim, keepdim=True)
    if about is not None:
        mean = mean + about
    return Moments(mean, var) if keepdim else Moments(mean.squeeze(dim), var.squeeze(dim))


def merge(moments: Moments, counts: Tensor) -> tuple[Moments, Tensor]:
    """Return the moments of the union of sets of different sizes (Chan, Golub and LeVeque, 1979).

    Args:
        moments: of shape (R, C), one row a set; a row whose count is 0 must be finite.
        counts: of shape (R,), the number of values per channel in each set; or (R, C).

    Returns:
        The merged moments of shape (C,), zero where there is no value at all, and the total
        count of shape (), or (C,).
    """
    total = counts.sum(0)
    share = counts / total.clamp(min=1)
    if share.dim() == 1:
        share = share.unsqueeze(1)
    mean = (share * moments.mean).sum(0)
    var = (share * (moments.var + (moments.mean - mean).square())).sum(0)
    return Moments(mean, var), total


def pack(moments: Moments, count: int) -> Tensor:
    """Pack mean, variance and count into one tensor (3, C), for one collective."""
    return torch.stack([*moments, torch.full_like(moments.mean, count)])


def mix(
    parts: list[Moments], mean_ratios: Sequence[Tensor], var_ratios: Sequence[Tensor]
) -> Moments:
    """Return Σ_k ratio_k · part_k; means and variances have their own K ratios ()."""
    if not len(mean_ratios) == len(var_ratios) == len(parts):
        raise ValueError(f'{len(mean_ratios)} and {len(var_ratios)} ratios of {len(parts)} moments')
    # Expanded first, so that the gradients of all ratios are sums in one loop.
    shape = torch.broadcast_shapes(*(part.mean.shape for part in parts))
    if parts[0].mean.dtype != torch.float64:  # on a GPU: first over each row, by blocks of its own
        rows = *shape[:-1], 1
        mean_ratios, var_ratios = ([r.expand(rows) for r in rs] for rs in (mean_ratios, var_ratios))
    means = [r * part.mean.expand(shape) for r, part in zip(mean_ratios, parts, strict=True)]
    variances = [r * part.var.expand(shape) for r, part in zip(var_ratios, parts, strict=True)]
    return Moments(reduce(add, means), reduce(add, variances))


def standardize(instance: Moments, by: Moments, weight: Tensor, bias: Tensor, eps: float) -> Affine:
    """Return the map y = weight · (x − by.mean) / sqrt(by.var + eps) + bias.

    Args:
        instance: moments of shape (N, C) of the input itself.
        by: the moments to normalize with, broadcastable to (N, C).
        weight: γ of shape (C,).
        bias: β of shape (C,).
        eps: added to the variance.

    Returns:
        The scale and the offset at the instance mean, each of shape (N, C).
    """
    scale = weight * torch.rsqrt(by.var + eps)
    scale, mean = torch.broadcast_tensors(scale, instance.mean)
    return Affine(scale, bias + (mean - by.mean) * scale)
