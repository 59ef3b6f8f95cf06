"""Filters that change the moments of a batch before a rule gets them: see ``normplug.ops.Filter``.

Wang, Peng, Luo et al., "Kalman Normalization: Normalizing Internal Representations Across Network
Layers", NIPS 2018, in the notation of Luo, VALSE 2018: z and C are the batch's mean and variance,
μ⁻ and Σ⁻ the predicted ones, q is the gain.
"""

import torch
from torch import Tensor

from normplug.stats import Moments

__all__ = ['follow', 'kalman_filter', 'mean_square', 'observed']


def kalman_filter(
    batch: Moments,
    prior_mean: Tensor,
    prior_var: Tensor,
    gain_logit: Tensor | None = None,
    *,
    gain: float | None = None,
    limit: float,
) -> Moments:
    """Correct a prediction by the batch: return the moments of a mixture of the two.

    μ = μ⁻ + q (z − μ⁻) and Σ = Σ⁻ + q (C − Σ⁻) + (1 − q) q (z − μ⁻)².

    If the prediction is far off, the result is the batch's own moments. As in the released code,
    it is far off if the prior variance is at least ``limit`` times that of the batch, averaged
    over the channels.

    Args:
        batch: z and C, (C,) or (groups, C).
        prior_mean, prior_var: μ⁻ and Σ⁻, likewise.
        gain_logit: (), q before the sigmoid, if q is learned.
        gain: q, if it is not learned.
        limit: see above; with infinity every prediction is used.
    """
    q = gain_logit.sigmoid() if gain is None else gain
    innovation = batch.mean - prior_mean
    mean = prior_mean + q * innovation
    var = prior_var + q * (batch.var - prior_var) + (1 - q) * q * innovation.square()
    if limit == float('inf'):
        return Moments(mean, var)
    # NaN (0 / 0) does not count as a good prediction.
    trusted = (prior_var / batch.var).mean(-1, keepdim=True) < limit
    return Moments(torch.where(trusted, mean, batch.mean), torch.where(trusted, var, batch.var))


def observed(batch: Moments) -> Moments:
    """Return the moments unchanged: the first layer of a chain has no prediction."""
    return Moments(batch.mean.clone(), batch.var.clone())


def mean_square(batch: Moments, others: Tensor, share: Tensor) -> Moments:
    """Return the batch's mean square, and, in place of a variance, its average with others.

    Args:
        batch: of the batch, (C,).
        others: what the others add to the average, (C,).
        share: of this one, (C,).
    """
    square = batch.var + batch.mean.square()
    return Moments(square, others + share * square)


def follow(batch: Moments, mean: Tensor, var: Tensor, speed: Tensor) -> Moments:
    """Return running moments after a step towards the batch's; none has a gradient.

    As in the released estimate of batch-channel norm, the batch's variance is about the *old* mean.

    Args:
        batch: of the batch, (C,) or (groups, C).
        mean, var: the running moments before, (C,).
        speed: the weight of the batch, ().
    """
    offset = batch.mean.detach() - mean
    spread = batch.var.detach() + offset.square()
    return Moments(mean + speed * offset, var + speed * (spread - var))
