"""What may be done to the moments of a batch before a rule sees them: see ``normplug.ops.Filter``.

Wang, Peng, Luo et al., "Kalman Normalization: Normalizing Internal Representations Across Network
Layers", NIPS 2018, in the notation of Luo, VALSE 2018: z and C are the batch's mean and variance,
μ⁻ and Σ⁻ the predicted ones, q is the gain.
"""

import torch
from torch import Tensor

from normplug.stats import Moments

__all__ = ['kalman_filter', 'observed']


def kalman_filter(
    batch: Moments,
    prior_mean: Tensor,
    prior_var: Tensor,
    gain_logit: Tensor | None = None,
    *,
    gain: float | None = None,
    limit: float,
) -> Moments:
    """Correct a prediction by what the batch shows: the moments of a mixture of the two.

    μ = μ⁻ + q (z − μ⁻) and Σ = Σ⁻ + q (C − Σ⁻) + (1 − q) q (z − μ⁻)²; where the prediction is far
    off, the batch's own moments.

    Far off is, as released, a prior variance of ``limit`` times the batch's or more, on average
    over the channels.

    Args:
        batch: z and C, (C,) or (groups, C).
        prior_mean, prior_var: μ⁻ and Σ⁻, likewise.
        gain_logit: (), q before the sigmoid, where q is learned.
        gain: q, where it is not.
        limit: see above; infinity trusts any prediction.
    """
    q = gain_logit.sigmoid() if gain is None else gain
    innovation = batch.mean - prior_mean
    mean = prior_mean + q * innovation
    var = prior_var + q * (batch.var - prior_var) + (1 - q) * q * innovation.square()
    if limit == float('inf'):
        return Moments(mean, var)
    # NaN, of 0 / 0, is no reason to trust.
    trusted = (prior_var / batch.var).mean(-1, keepdim=True) < limit
    return Moments(torch.where(trusted, mean, batch.mean), torch.where(trusted, var, batch.var))


def observed(batch: Moments) -> Moments:
    """The first of a chain: nothing is predicted."""
    return Moments(batch.mean.clone(), batch.var.clone())
