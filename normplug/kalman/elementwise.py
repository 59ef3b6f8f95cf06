"""Moments of a Gaussian after an activation, or after pooling over windows.

All tensors are of shape (..., C), float64.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import pi, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from normplug.stats import Moments

__all__ = ['activated', 'averaged', 'largest', 'rectified', 'transformed']

_TINY = 1e-30
_REACH = 8.0  # standard deviations; values beyond have a probability of 1e-15
_POINTS = 513


def rectified(gaussian: Moments) -> Moments:
    """Return the moments of max(X, 0) for X ~ N(mean, var).

    E[max(X, 0)] = m Φ(m/s) + s φ(m/s), and E[max(X, 0)²] = (m² + s²) Φ(m/s) + m s φ(m/s): integrals
    of the normal density φ, whose integral is Φ. For m > 0, max(X, 0) = X + max(−X, 0), and both
    are computed for −m: otherwise the variance would be a difference of two squares.
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
    """Return moments of the largest of ``window`` independent f(X), X ~ N(mean, var).

    They are computed by quadrature.

    Args:
        gaussian: (..., C).
        function: f, elementwise and, where ``window`` exceeds 1, increasing; None for the identity.
        window: number of values of which the maximum is taken.
    """
    # Made where it is used: a constant would have to be copied to the device.
    like = dict(dtype=gaussian.mean.dtype, device=gaussian.mean.device)
    z = torch.linspace(-_REACH, _REACH, _POINTS, **like)
    weight = torch.exp(-z.square() / 2) * torch.special.ndtr(z) ** (window - 1)
    weight = weight / weight.sum()
    m, var = (t.unsqueeze(-1) for t in gaussian)
    value = m + var.clamp(min=_TINY).sqrt() * z
    if function is not None:
        value = function(value)
    mean = (value * weight).sum(-1)
    var = ((value - mean.unsqueeze(-1)).square() * weight).sum(-1)
    return Moments(mean, var)


def activated(function: Callable[[Tensor], Tensor], axes: int) -> Callable[..., Moments]:
    """Return a function that maps mean and var to the moments after ``function``.

    ReLU has a closed form; other functions use quadrature.

    Args:
        function: (N, C, *size) → the same, elementwise; may have parameters of each channel.
        axes: of the size.
    """
    if function is F.relu:
        return _rectified
    return partial(_transformed, function=function, axes=axes)


def _rectified(mean: Tensor, var: Tensor) -> Moments:
    return rectified(Moments(mean, var))


def _transformed(
    mean: Tensor, var: Tensor, *, function: Callable[[Tensor], Tensor], axes: int
) -> Moments:
    def of_points(value: Tensor) -> Tensor:
        """Apply ``function`` to (..., C, points) as to a map: learned slopes belong to axis 1."""
        x = value.reshape(-1, *value.shape[-2:], *[1] * (axes - 1))
        return function(x).reshape(value.shape)

    return transformed(Moments(mean, var), of_points)


def largest(
    mean: Tensor,
    var: Tensor,
    windows: Sequence[tuple[int, int]],
    *,
    function: Callable[[Tensor], Tensor] | None,
) -> Moments:
    """Return the moments of the maxima of f(X) over all windows.

    Args:
        mean, var: of X.
        windows: pairs (number of values in a window, number of such windows).
        function: f, see :func:`transformed`.
    """
    gaussian = Moments(mean, var)
    parts = [(transformed(gaussian, function, count), times) for count, times in windows]
    return _mixture(parts)


def averaged(
    mean: Tensor, var: Tensor, windows: Sequence[tuple[int, int]], *, divisor: int | None
) -> Moments:
    """Return moments of averages over windows; ``divisor`` replaces the number of values."""
    parts = []
    for count, times in windows:
        by = count if divisor is None else divisor
        parts.append((Moments(mean * (count / by), var * (count / by**2)), times))
    return _mixture(parts)


def _mixture(parts: Sequence[tuple[Moments, int]]) -> Moments:
    """Of so many windows each."""
    total = sum(times for _, times in parts)
    # Relative to the mean of the first, not to 0, so that no digits are lost.
    base = parts[0][0].mean
    shift = sum(times / total * (m - base) for (m, _), times in parts)
    square = sum(times / total * (v + (m - base).square()) for (m, v), times in parts)
    return Moments(base + shift, square - shift.square())
