"""Switchable Normalization: learned ratios of instance, layer and batch statistics.

Luo, Ren, Peng, Zhang and Li, "Differentiable Learning-to-Normalize via Switchable Normalization",
ICLR 2019, equations 3 to 5: x̂ = (x − Σ_k w_k μ_k) / sqrt(Σ_k w'_k σ²_k + ε), with w and w' the
softmax of three logits each. Variances are mixed, not standard deviations.

Deviations from the released code, unless ``released_statistics``: biased instance variances (so
that a 1×1 map is no NaN), an unbiased running variance, and the running statistics start at 0
and 1 and move by PyTorch's momentum (released: 0 and 0; momentum is the old value's weight).
"""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from normplug.norms.base import BaseNorm
from normplug.norms.switchable import SwitchableNorm
from normplug.ops import at_least_single

__all__ = ['SN', 'SyncSN']


# Ratio of the favoured normalizer is e^g / (e^g + K − 1): 0.9951 of three, 0.9975 of two, near
# enough to keep a loaded network's features and far enough from 1 for the logits to learn.
_LOGIT_GAP = 6.0


class SN(SwitchableNorm, BaseNorm):
    """Switchable Normalization for (N, C) and (N, C, *spatial) inputs.

    Args:
        num_features: C.
        eps: added to the mixed variance.
        momentum: weight of the new batch in the running statistics.
        logit_init: 'uniform' for equal ratios, as published, or 'in', 'ln', 'bn' to start at
            that normalizer: 'bn' for a backbone pretrained with BN.
        using_in, using_bn, released_statistics, frozen, virtual_batch_size: see
            :class:`SwitchableNorm`.
    """

    _on_foreign_checkpoint = (
        'It has no mean_weight and var_weight that fit, so the ratios keep their initial values: '
        "logit_init='bn' in norm_cfg starts them at batch norm."
    )

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        using_in: bool = True,
        using_bn: bool = True,
        logit_init: str = 'uniform',
        released_statistics: bool = False,
        frozen: bool = False,
        virtual_batch_size: int | None = None,
    ) -> None:
        super().__init__(
            num_features,
            eps,
            momentum,
            using_in=using_in,
            using_bn=using_bn,
            released_statistics=released_statistics,
            frozen=frozen,
            virtual_batch_size=virtual_batch_size,
        )
        self._require(
            logit_init == 'uniform' or logit_init in self.normalizers,
            f"logit_init must be 'uniform' or one of {self.normalizers}, got {logit_init!r}",
        )
        if logit_init != 'uniform':
            logits = [1 + _LOGIT_GAP * (name == logit_init) for name in self.normalizers]
            for name in ('mean_weight', 'var_weight'):
                self.set_initial(name, logits)

    @staticmethod
    def to_ratios(mean_weight: Tensor, var_weight: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the softmax of equation 5."""
        return _softmax(mean_weight.unbind()), _softmax(var_weight.unbind())

    def live_ratios(self) -> tuple[Tensor, Tensor]:
        """For ``torch.jit.script``."""
        return (
            at_least_single(self.mean_weight).softmax(0),
            at_least_single(self.var_weight).softmax(0),
        )


def _softmax(logits: Sequence[Tensor]) -> list[Tensor]:
    """Return the softmax of K logits (), which fuse with later operations on a GPU."""
    largest = reduce(torch.maximum, logits).detach()
    powers = [(logit - largest).exp() for logit in logits]
    total = reduce(torch.add, powers)
    return [power / total for power in powers]


class SyncSN(SN, BaseNorm):
    """SN whose batch statistics are those of all ranks; arguments as :class:`SN`."""

    synchronized = True
