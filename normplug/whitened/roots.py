"""Whitening matrices of a covariance, with their inverses in closed form."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ['Root', 'root_of']


class Root(NamedTuple):
    """A whitening matrix and its (pseudo-)inverse, (d, d) each.

    Of a truncated one, ``inverse @ matrix`` projects on the kept eigenvectors; with ``symmetric``
    both orders do.

    Attributes:
        kept: d', the number of eigenvectors.
    """

    matrix: Tensor
    inverse: Tensor
    kept: int


def root_of(cov: Tensor, eps: float, rank: float | None, symmetric: bool) -> Root:
    """Return diag(λ + eps)^(−1/2) Qᵀ of ``cov`` = Q diag(λ) Qᵀ.

    Desjardins et al., "Natural Neural Networks", NIPS 2015, algorithm 1. Truncated whitening, the
    top d' eigenpairs: Luo, "Learning Deep Architectures via Generalized Whitened Neural Networks",
    ICML 2017. A matrix stays (d, d): rows beyond d' are zero.

    Args:
        cov: (d, d), symmetric, finite, in the precision of the result.
        eps: added to the eigenvalues.
        rank: d'; or, if it is a float, the least share of the variance that is kept; None for all.
        symmetric: multiply by Q from the left (ZCA), so that channels keep their meaning.
    """
    values, vectors = torch.linalg.eigh(cov)
    values = values.clamp(min=0).flip(0)
    vectors = vectors.flip(1)
    kept = _kept(values, rank)
    mask = torch.arange(len(values), device=cov.device) < kept
    roots = (values + eps).sqrt()
    matrix = (mask / roots).unsqueeze(1) * vectors.T
    inverse = vectors * (mask * roots)
    if symmetric:
        matrix, inverse = vectors @ matrix, inverse @ vectors.T
    return Root(matrix, inverse, kept)


def _kept(values: Tensor, rank: float | None) -> int:
    if rank is None:
        return len(values)
    if isinstance(rank, int):
        return rank
    if not values.sum() > 0:  # constant inputs: nothing says which directions matter
        return len(values)
    shares = values.cumsum(0) / values.sum()
    # A sum of shares may round to less than one.
    return min(int((shares < rank - 1e-12).sum()) + 1, len(values))
