"""The noise of a batch's statistics, and what it does to a loss, as functions of small tensors.

Luo, Wang, Shao and Peng, "Towards Understanding Regularization in Batch Normalization", ICLR 2019
(arXiv 1809.00846): the mean and the deviation of M independent samples scatter about those of the
population, and on average that adds ζγ² to the loss. M is the number of *independent* samples. The
pixels of an image are not independent, so the number of images is the safe lower bound of M. N·H·W
is no upper one: where layers before normalize by the same batch, the mean scatters less than that.
"""

import torch
from torch import Tensor

__all__ = [
    'MIN_DEVIATION',
    'decay_strength',
    'excess_kurtosis',
    'jacobian_trace',
    'squared_norm',
    'std_of_mean',
    'std_of_std',
]

# Of a drawn σ_B in σ_P. The Gaussian law of σ_B reaches below 0 where M is a few samples.
MIN_DEVIATION = 0.1


def std_of_mean(std: Tensor, samples: float) -> Tensor:
    """Return the standard deviation of the mean of M samples, σ_P / √M.

    Args:
        std: σ_P, (C,).
        samples: M.
    """
    return std / samples**0.5


def std_of_std(std: Tensor, kurtosis: Tensor | float, samples: float) -> Tensor:
    """Return the standard deviation of σ_B of M samples, σ_P √((ρ + 2) / (4M)).

    The talk's slide has it without σ_P², which is right for σ_P = 1 only. Leading order in 1/M.

    Args:
        std: σ_P, (C,).
        kurtosis: ρ, the excess kurtosis, at least −2; (C,) or a number.
        samples: M.
    """
    return std * ((torch.as_tensor(kurtosis) + 2) / (4 * samples)).sqrt()


def decay_strength(
    fisher: Tensor,
    curvature: Tensor,
    kurtosis: Tensor | float,
    samples: Tensor | float,
    mean_samples: Tensor | float | None = None,
) -> Tensor:
    """Return ζ = (ρ + 2) / (8M) · F_γ + 1 / (2M) · E[A''(h̄)], (C,).

    The first term comes from σ_B, the second from μ_B.

    Args:
        fisher: F_γ, the mean over samples of (dL_j/dγ)², (C,).
        curvature: E[A''(h̄)], the mean over samples of the second derivative of a sample's loss by
            its normalized value, (C,). For losses in general, see
            :class:`normplug.hooks.GammaDecayHook`.
        kurtosis: ρ, as in :func:`std_of_std`.
        samples: M, a number or (C,); infinity for a term of 0.
        mean_samples: M of the second term, if it has another.
    """
    if mean_samples is None:
        mean_samples = samples
    of_std = (torch.as_tensor(kurtosis) + 2) / (8 * samples) * fisher
    return of_std + curvature / (2 * mean_samples)


def jacobian_trace(weight: Tensor, std: Tensor, samples: float) -> Tensor:
    """Return tr J = (γ / σ)(M − 2) of ĥ = γ(h − μ_B)/σ_B + β by the M values h, (C,).

    J = (γ/σ)(I − (x̂x̂ᵀ + 11ᵀ)/M). Exact for ε = 0.
    """
    return weight / std * (samples - 2)


def squared_norm(weight: Tensor, bias: Tensor, samples: float) -> Tensor:
    """Return |ĥ|² = M(γ² + β²) of the M normalized values of a channel, (C,). Exact for ε = 0."""
    return samples * (weight.square() + bias.square())


def excess_kurtosis(second: Tensor, fourth: Tensor) -> Tensor:
    """Return ρ = E[(h − μ)⁴] / E[(h − μ)²]² − 3, (C,).

    0 where a channel is constant, which scatters no batch statistic whatever ρ is. At least −2, the
    least that a distribution can have, in spite of rounding.

    Args:
        second, fourth: central moments, (C,).
    """
    constant = second == 0
    ratio = fourth / torch.where(constant, 1, second).square()
    return torch.where(constant, 0, ratio - 3).clamp(min=-2)
