"""Batch Normalization over all ranks, or over a part of a rank's batch, on any device.

Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal
Covariate Shift", ICML 2015, algorithms 1 and 2; over the ranks as in Peng et al., "MegDet: A Large
Mini-Batch Object Detector", CVPR 2018, section 3.3.
"""

from functools import partial

from torch import Tensor

from normplug.norms.base import BaseNorm
from normplug.ops import Rule
from normplug.stats import standardize

__all__ = ['GhostBN', 'PortableSyncBN']


class _BatchOnly(BaseNorm):
    """What a batch norm is: a rule of the batch's moments alone."""

    def rule(self, x: Tensor) -> Rule:
        """Batch norm."""
        return partial(standardize, eps=self.eps)

    def scripted_ratios(self) -> tuple[Tensor, Tensor]:
        """Batch norm's."""
        return self.of_running()


class PortableSyncBN(_BatchOnly, BaseNorm):
    """Batch norm with the statistics of all ranks, where ``type='SyncBN'`` does not run.

    mmcv's SyncBN is ``nn.SyncBatchNorm``, which takes CUDA tensors only. This type computes the
    same on any device that the backend of the process group supports. A config selects it by
    ``norm_cfg=dict(type='PortableSyncBN')``. Its state dict is that of a batch norm, in both
    directions. Ranks may have uneven or empty batches; without a process group it is a plain
    batch norm.

    Args:
        num_features: C.
        eps: added to the variance.
        momentum: weight of the new batch in the running statistics.
        frozen: see :class:`BaseNorm`.
    """

    synchronized = True


class GhostBN(_BatchOnly, BaseNorm):
    """Batch norm over each k images of a rank's batch, as on ranks of k images each.

    Hoffer, Hubara and Soudry, "Train longer, generalize better: closing the generalization gap in
    large batch training of neural networks", NIPS 2017, algorithm 1. With it, one GPU can
    measure the effect of micro-batches on batch norm, at any batch size of the optimizer. Its state
    dict is compatible with that of a batch norm, in both directions, and evaluation is the same.
    Deviation: running statistics are updated by the average over the groups at each step, not by
    one group after the other.

    Args:
        num_features: C.
        virtual_batch_size: k, which must divide the rank's batch; None for all of its images.
        eps: added to the variance.
        momentum: weight of the new batch in the running statistics.
        frozen: see :class:`BaseNorm`.
    """
