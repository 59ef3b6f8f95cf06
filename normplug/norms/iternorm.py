"""Iterative Normalization: whitening of the batch by Newton's iterations.

Huang, Zhou, Zhu, Liu and Shao, "Iterative Normalization: Beyond Standardization towards Efficient
Whitening", CVPR 2019, algorithm 1. As there, the running statistic beside the mean is the average
of the whitening matrices, not the whitening matrix of an average covariance.

Deviations from the released code: evaluation can be differentiated (there it crashes), several
groups can be evaluated after training, and a number of channels that does not divide C is an error
(there it is halved until it does).
"""

from torch import Tensor

from normplug.covariance import Covariances, Linear, whiten
from normplug.norms.base import BaseNorm
from normplug.norms.whitening import WhiteningNorm
from normplug.ops import Rule

__all__ = ['IterNorm', 'SyncIterNorm']

_CHANNELS = 64  # the authors' advice


def iternorm_rule(
    instance: Covariances,
    batch: Covariances,
    weight: Tensor,
    bias: Tensor,
    *,
    pixels: int,
) -> Linear:
    """Whiten by the batch, whose second part is a whitening matrix: ``Blocks.root``."""
    return whiten(instance.mean, batch.mean, batch.cov.unsqueeze(0), weight, bias)


class IterNorm(WhiteningNorm, BaseNorm):
    """Iterative Normalization for (N, C) and (N, C, *spatial) inputs.

    Args:
        num_features: C.
        eps: added to the diagonal of the covariance.
        momentum: weight of the new batch in the running statistics.
        num_channels: channels that are whitened together, consecutive ones; it must divide C, and
            is C where that is less. None for 64, unless ``num_groups`` is given.
        num_groups: or how many such blocks there are, which must divide C.
        T: number of Newton's iterations; part of the definition, the authors use 3 to 8.
        frozen: see :class:`BaseNorm`.

    Attributes:
        running_mean: (C,), initially 0.
        running_wm: whitening matrices, (C / d, d, d), initially the identity.
    """

    _on_foreign_checkpoint = (
        'It has no running whitening matrices that fit, so evaluation starts without whitening. '
        'Of a batch norm, tools/convert_checkpoint.py --norm IterNorm keeps what it evaluates to.'
    )
    matrix_name = 'running_wm'
    averages_roots = True

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        num_channels: int | None = None,
        num_groups: int | None = None,
        T: int = 5,
        frozen: bool = False,
    ) -> None:
        self._require(
            num_channels is None or num_groups is None,
            'num_channels and num_groups both say how large a block is: give one of them',
        )
        self.num_channels, self.num_groups = num_channels, num_groups
        super().__init__(num_features, eps, momentum, T, frozen=frozen)

    def block_size(self) -> int:
        """``num_channels``, or C / ``num_groups``."""
        if self.num_groups is not None:
            return self.num_features // self._divisor('num_groups', self.num_groups)
        channels = _CHANNELS if self.num_channels is None else self.num_channels
        return self._divisor('num_channels', channels)

    def mixes_instances(self) -> bool:
        """Never."""
        return False

    def rule(self, x: Tensor) -> Rule:
        """Whitening by the matrices of the batch, or by the running ones."""
        return iternorm_rule


class SyncIterNorm(IterNorm, BaseNorm):
    """IterNorm whose batch statistics are those of all ranks; arguments as :class:`IterNorm`."""

    synchronized = True
