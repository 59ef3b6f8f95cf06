"""Gaussian maps, drawn or at their extremes."""

from math import sqrt

import torch

from normplug.stats import Moments

# Of the Monte-Carlo mean. Below, some 500 errors are measured, of fixed seeds: one beyond 5 would
# be an accident of one in 3000.
STANDARD_ERRORS = 5
DRAWS = 3000


def drawn(gaussian, size, count=DRAWS):
    mean, var = (t.view(1, -1, *[1] * len(size)) for t in gaussian)
    return mean + var.sqrt() * torch.randn(count, mean.shape[1], *size).double()


def assert_in_standard_errors(got, draws):
    """Of a mean over the first axis."""
    error = (got - draws.mean(0)).abs()
    assert (error <= STANDARD_ERRORS * draws.std(0) / sqrt(len(draws)) + 1e-12).all()


def extremes():
    """Means and variances that a training may come to, all combinations."""
    means = [0.0, 1e-20, 1e-3, 1.0, 30.0, 1e4, 1e8, 1e30]
    variances = [0.0, 1e-40, 1e-12, 1.0, 1e8, 1e30]
    pairs = torch.cartesian_prod(
        torch.tensor([s * m for m in means for s in (1, -1)]).double(),
        torch.tensor(variances, dtype=torch.float64),
    )
    return Moments(*pairs.T)
