"""The first four moments of a layer's inputs over several batches, for the excess kurtosis."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from normplug.batch_noise import excess_kurtosis
from normplug.dist import group_reducer
from normplug.ops import batch_moments_of_powers
from normplug.precision import small_dtype

__all__ = ['CentralMoments', 'central_moments', 'merge_moments', 'over_ranks']

# A standard deviation below this share of |mean| is rounding.
_ROUNDING = 1e-6


class CentralMoments(NamedTuple):
    """Number of values, their mean and central moments E[(h − μ)^k], (C,) each.

    Only sums of batches are exact; of a single batch of few images, ρ is too small.
    """

    count: Tensor
    mean: Tensor
    second: Tensor
    third: Tensor
    fourth: Tensor

    def is_constant(self) -> Tensor:
        """Return whether all values of a channel are the same, but for rounding; bool (C,)."""
        return self.second.sqrt() <= _ROUNDING * self.mean.abs()

    def kurtosis(self) -> Tensor:
        """Return ρ, (C,): see :func:`normplug.batch_noise.excess_kurtosis`; 0 where constant."""
        return excess_kurtosis(torch.where(self.is_constant(), 0, self.second), self.fourth)

    @classmethod
    def none(cls, channels: int, like: Tensor) -> CentralMoments:
        """Return those of no values."""
        zeros = torch.zeros(5, channels, dtype=small_dtype(like, exact=True), device=like.device)
        return cls(*zeros)


@torch.no_grad()
def central_moments(x: Tensor) -> CentralMoments:
    """Return the moments of one input (N, C, *spatial); N may be 0."""
    dtype = small_dtype(x, exact=True)
    count = x.numel() // max(x.shape[1], 1)
    if count == 0:
        return CentralMoments.none(x.shape[1], x)
    mean, *powers = batch_moments_of_powers(x, dtype)
    return CentralMoments(torch.full_like(mean, count), mean, *powers)


def merge_moments(sets: list[CentralMoments]) -> CentralMoments:
    """Return the moments of the union of disjoint sets.

    About the common mean, of d = mean_i − mean: E[(h − μ)⁴] is the mean over the values of
    m4 + 4 d m3 + 6 d² m2 + d⁴, and so on (Pébay, Sandia report SAND2008-6212, equation 2.1).
    """
    counts, means, second, third, fourth = (torch.stack(t) for t in zip(*sets, strict=True))
    total = counts.sum(0)
    share = counts / total.clamp(min=1)
    mean = (share * means).sum(0)
    d = means - mean
    about = (
        second + d**2,
        third + 3 * d * second + d**3,
        fourth + 4 * d * third + 6 * d**2 * second + d**4,
    )
    return CentralMoments(total, mean, *((share * t).sum(0) for t in about))


def over_ranks(moments: CentralMoments) -> CentralMoments:
    """Return the moments over all ranks; every rank has to call this."""
    reducer = group_reducer()
    if reducer is None:
        return moments
    ranks = reducer.gather(torch.stack(moments))
    return merge_moments([CentralMoments(*rank) for rank in ranks])
