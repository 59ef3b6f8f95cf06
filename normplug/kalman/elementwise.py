"""Moments of a Gaussian after an activation, or after a maximum over a window of them.

All tensors are of shape (..., C), float64.
"""

from collections.abc import Callable
from functools import cache
from math import pi, sqrt

import torch
from torch import Tensor

from normplug.stats import Moments

__all__ = ['rectified', 'transformed']

_TINY = 1e-30
_REACH = 8.0  # standard deviations; what lies beyond has a probability of 1e-15
_POINTS = 513


def rectified(gaussian: Moments) -> Moments:
    """Moments of max(X, 0) for X ~ N(mean, var).

    E[max(X, 0)] = m Φ(m/s) + s φ(m/s), and E[max(X, 0)²] = (m² + s²) Φ(m/s) + m s φ(m/s): integrals
    of the normal density φ, whose integral is Φ. Where m > 0, max(X, 0) = X + max(−X, 0), and the
    two are computed for −m: the variance would be the difference of two squares otherwise.
    """
    m, var = gaussian
    s = var.clamp(min=_TINY).sqrt()
    positive = m > 0
    t = torch.where(positive, m, -m)
    below = torch.special.ndtr(-t / s)
    s_phi = s * torch.exp(-(m / s).square() / 2) / sqrt(2 * pi)
    part = s_phi - t * below  # E[max(−|m| + s Z, 0)], and of its square:
    square = (m.square() + var) * below - t * s_phi
    mean = torch.where(positive, m, 0.0) + part
    variance = square - part.square()
    return Moments(
        mean,
        torch.where(positive, var - square - part.square() - 2 * m * part, variance).clamp(min=0),
    )


def transformed(
    gaussian: Moments, function: Callable[[Tensor], Tensor] | None = None, window: int = 1
) -> Moments:
    """Moments of the largest of ``window`` independent f(X), X ~ N(mean, var), by quadrature.

    Args:
        gaussian: (..., C).
        function: f, elementwise and, where ``window`` exceeds 1, increasing; None for the identity.
        window: how many values the maximum is taken of.
    """
    z, weight = _rule(window, gaussian.mean.device)
    m, var = (t.unsqueeze(-1) for t in gaussian)
    value = m + var.clamp(min=_TINY).sqrt() * z
    if function is not None:
        value = function(value)
    mean = (value * weight).sum(-1)
    var = ((value - mean.unsqueeze(-1)).square() * weight).sum(-1)
    return Moments(mean, var)


@cache
def _rule(window: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Points and weights for the maximum of ``window`` standard normals."""
    z = torch.linspace(-_REACH, _REACH, _POINTS, dtype=torch.float64)
    weight = torch.exp(-z.square() / 2) * torch.special.ndtr(z) ** (window - 1)
    return z.to(device), (weight / weight.sum()).to(device)
