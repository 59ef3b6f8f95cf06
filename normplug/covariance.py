"""Algebra of means and covariances of blocks of channels: the second-order twin of stats.

Everything here works on small tensors, in plain differentiable torch. Covariances are pooled by the
law of total covariance, cov = mean(cov) + cov(mean), and never as E[xxᵀ] − E[x]E[x]ᵀ, which is off
by 13 % in float32 at |mean|/std of 1e3.
"""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    'Covariances',
    'Linear',
    'applied',
    'inverse_root',
    'merge',
    'outer',
    'pool',
    'whiten',
]


_MOST_IN_FLOAT32 = 8


class Covariances(NamedTuple):
    """Mean (..., d) and (biased) covariance (..., d, d) of blocks of d channels."""

    mean: Tensor
    cov: Tensor


class Linear(NamedTuple):
    """The map y = scale · (matrix · (x − mean)) + offset, where mean is the instance's, (N, g, d).

    x is (N, g, d, k, S), see :class:`normplug.ops.plan.Blocks`; the matrix mixes the d rows, scale
    and offset are of the d · k channels. Giving the offset at the instance mean keeps the output
    and all gradients free of cancellation when |mean|/std is large; see
    :class:`normplug.stats.Affine`.

    Attributes:
        matrix: (N, g, d, d), or (1, g, d, d) if it is that of all instances.
        scale: (1, g, d, k).
        offset: (N, g, d, k).
    """

    matrix: Tensor
    scale: Tensor
    offset: Tensor


def applied(matrix: Tensor, vector: Tensor) -> Tensor:
    """(..., d, d) times (..., d), in the matrix's dtype."""
    return (matrix @ vector.to(matrix.dtype).unsqueeze(-1)).squeeze(-1)


def outer(t: Tensor) -> Tensor:
    """``t tᵀ`` along the last axis: (..., d) to (..., d, d)."""
    return t.unsqueeze(-1) * t.unsqueeze(-2)


def pool(parts: Covariances) -> Covariances:
    """Return the moments of the union of N equally large sets, (g, d) and (g, d, d)."""
    mean = parts.mean.mean(0)
    about = (parts.mean - mean).transpose(0, 1)
    spread = about.mT @ about / parts.mean.shape[0]
    return Covariances(mean, parts.cov.mean(0, dtype=mean.dtype) + spread)


def merge(ranks: Covariances, counts: Tensor) -> tuple[Covariances, Tensor]:
    """Return the moments of the union of R sets of different sizes, and their total count ().

    Args:
        ranks: (R, g, d) and (R, g, d, d); a row whose count is 0 must be finite.
        counts: (R,), the number of values per channel in each set.
    """
    total = counts.sum()
    share = (counts / total.clamp(min=1)).view(-1, 1, 1)
    mean = (share * ranks.mean).sum(0)
    spread = ranks.cov + outer(ranks.mean - mean)
    return Covariances(mean, (share.unsqueeze(-1) * spread).sum(0)), total


def inverse_root(cov: Tensor, eps: float, iterations: int) -> Tensor:
    """Approximate (cov + eps · I)^(−1/2) by Newton's iterations.

    Huang et al., "Iterative Normalization: Beyond Standardization towards Efficient Whitening",
    CVPR 2019, algorithm 1. The number of iterations is part of the definition of a normalizer: a
    few whiten only in part (small eigenvalues stay small), and an exact root would compute
    something else.

    The paper's P ← (3P − P³Σ) / 2 multiplies rounding errors: in float32, 8 iterations were off by
    1e-3 at a condition number of 1e4. Here Y = PΣ has a recurrence of its own (Higham, "Stable
    iterations for the matrix square root", 1997), which is as long and keeps them small.

    Args:
        cov: (..., d, d).
        eps: makes a constant region, of covariance 0, finite.
        iterations: at least 1. Each multiplies rounding errors by up to 2.25, so that more than 8
            are computed in float64 where the device may have it.
    """
    if iterations > _MOST_IN_FLOAT32 and cov.dtype != torch.float64 and _has_float64(cov):
        return inverse_root(cov.double(), eps, iterations).to(cov.dtype)
    size = cov.shape[-1]
    identity = torch.eye(size, dtype=cov.dtype, device=cov.device)
    cov = cov + eps * identity
    trace = cov.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    scaled = cov / trace
    thrice_half = 1.5 * identity
    root = step = thrice_half - 0.5 * scaled  # from the identity
    for _ in range(iterations - 1):
        scaled = scaled @ step
        step = thrice_half - 0.5 * (root @ scaled)
        root = step @ root
    return root * trace.rsqrt()


def _has_float64(t: Tensor) -> bool:
    return t.device.type not in ('mps', 'xpu')


def whiten(
    instance_mean: Tensor, by_mean: Tensor, root: Tensor, weight: Tensor, bias: Tensor
) -> Linear:
    """Return the map y = weight · root · (x − by_mean) + bias.

    Args:
        instance_mean: (N, g, d).
        by_mean: broadcastable to it.
        root: the whitening matrix, (N or 1, g, d, d).
        weight, bias: γ and β, (C,).
    """
    scale, bias = (t.view(1, *instance_mean.shape[1:], -1) for t in (weight, bias))
    centre = applied(root, instance_mean - by_mean).unsqueeze(-1)
    return Linear(root, scale, bias + scale * centre)
