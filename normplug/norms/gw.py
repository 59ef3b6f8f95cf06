"""Group Whitening: each image's groups of channels are whitened against each other.

Huang, Zhou, Liu, Cheng and Shao, "Group Whitening: Balancing Learning Efficiency and
Representational Capacity", CVPR 2021. Group i holds the channels i·C/G to
(i + 1)·C/G; its C/G channels and all pixels are the samples of one variable, so that the covariance
of an image is G×G. There are no batch statistics: training and evaluation are the same.

Deviation from the released code, which takes ``eps`` but does not use it: it is added to the
covariance, so that a constant region gives β and not NaN.
"""

from functools import partial

from torch import Tensor

from normplug.covariance import Covariances, Linear, inverse_root, whiten
from normplug.norms.base import BaseNorm
from normplug.norms.whitening import WhiteningNorm
from normplug.ops import Rule

__all__ = ['GW']


def gw_rule(
    instance: Covariances,
    batch: None,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float,
    iterations: int,
    pixels: int,
) -> Linear:
    """Whiten the one block of each image, whose rows are the groups."""
    root = inverse_root(instance.cov, eps, iterations)
    return whiten(instance.mean, instance.mean, root, weight, bias)


class GW(WhiteningNorm, BaseNorm):
    """Group Whitening for (N, C) and (N, C, *spatial) inputs.

    Args:
        num_features: C.
        eps: added to the diagonal of the covariance.
        momentum: has no effect; taken because the norm_cfg of a batch norm may have it.
        num_groups: G, which must divide C, and is C where that is less; published
            detectors have 64.
        num_channels: or C / G, the channels of a group; 0 to use ``num_groups``.
        T: number of Newton's iterations; part of the definition.
        frozen: train nothing; see :class:`BaseNorm`.
    """

    _on_foreign_checkpoint = 'Its weight and bias are used; the activations will change.'
    batch_from = None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        num_groups: int = 32,
        num_channels: int = 0,
        T: int = 5,
        frozen: bool = False,
    ) -> None:
        self.num_groups, self.num_channels = num_groups, num_channels
        super().__init__(num_features, eps, momentum, T, frozen=frozen)
        self.width = num_features // self.size

    def block_size(self) -> int:
        """G, the number of groups."""
        if self.num_channels != 0:
            return self.num_features // self._divisor('num_channels', self.num_channels)
        return self._divisor('num_groups', self.num_groups)

    def rule(self, x: Tensor) -> Rule:
        """Whitening of each image."""
        return partial(gw_rule, eps=self.eps, iterations=self.T)

    def _blocks_repr(self) -> str:
        return f'num_groups={self.size}'
