"""Extended Batch Norm: batch norm's mean of each channel, and one standard deviation of all.

Luo, Zhan, Wang and Yang, "Extended Batch Normalization" (arXiv 2003.05569): the mean is over
(N, H, W), the standard deviation over (N, C, H, W), a number that few images estimate well. About
which mean, the abstract does not say; here it is that of all values, so that the variance has a
part between the channels.
"""

from functools import partial

from torch import Tensor

from normplug.norms.base import BaseNorm
from normplug.ops import Rule
from normplug.stats import Affine, Moments, pool, standardize

__all__ = ['EBN', 'SyncEBN']


def ebn_rule(
    instance: Moments, batch: Moments, weight: Tensor, bias: Tensor, *, eps: float
) -> Affine:
    """y = γ (x − μ_B) / sqrt(σ² + ε) + β, with σ² the variance over the channels too."""
    whole = pool(batch, -1, keepdim=True)
    by = Moments(batch.mean, whole.var.expand_as(batch.mean))
    return standardize(instance, by, weight, bias, eps)


class EBN(BaseNorm):
    """Extended Batch Norm for (N, C) and (N, C, *spatial) inputs.

    In evaluation the running means and variances of the channels are pooled in the same way.
    Arguments are those of :class:`BaseNorm`; parameters and buffers are batch norm's.
    """

    def rule(self, x: Tensor) -> Rule:
        """The channel's mean, and the standard deviation of all channels."""
        return partial(ebn_rule, eps=self.eps)


class SyncEBN(EBN, BaseNorm):
    """EBN whose batch statistics are those of all ranks; arguments as :class:`EBN`."""

    synchronized = True
