"""Batch-Instance Norm: a learned gate per channel between batch norm and instance norm.

Nam and Kim, "Batch-Instance Normalization for Adaptively Style-Invariant Neural Networks",
NeurIPS 2018, equation 3. Deviation: the gate is the sigmoid of a logit that starts at 0, where
the paper clips it to [0, 1] after every step and starts it at 1.
"""

from functools import partial

import torch
from torch import Tensor

from normplug.norms.base import BaseNorm
from normplug.ops import Rule
from normplug.stats import Affine, Moments, standardize

__all__ = ['BIN']


def bin_rule(
    instance: Moments, batch: Moments, weight: Tensor, bias: Tensor, logit: Tensor, *, eps: float
) -> Affine:
    """Equation 3 on (N, C) moments."""
    gate = logit.sigmoid()
    by_batch = standardize(instance, batch, weight, bias, eps)
    by_instance = standardize(instance, instance, weight, bias, eps)
    return Affine(
        gate * by_batch.scale + (1 - gate) * by_instance.scale,
        gate * by_batch.offset + (1 - gate) * by_instance.offset,
    )


class BIN(BaseNorm):
    """Batch-Instance Norm for (N, C) and (N, C, *spatial) inputs.

    Args:
        num_features: C.
        eps: added to both variances.
        momentum: weight of the new batch in the running statistics.
        frozen, virtual_batch_size: see :class:`BaseNorm`.

    Attributes:
        gate_logit: (C,), logits of the share of batch norm.
    """

    _on_foreign_checkpoint = 'It has no gate, so both norms keep equal shares.'

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        frozen: bool = False,
        virtual_batch_size: int | None = None,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, frozen=frozen, virtual_batch_size=virtual_batch_size
        )
        self.add_parameter('gate_logit', (num_features,), 0.0)

    def rule(self, x: Tensor) -> Rule:
        """Equation 3."""
        return partial(bin_rule, eps=self.eps)

    def rule_params(self) -> tuple[Tensor, ...]:
        """γ, β and the logits of the gate."""
        return self.weight, self.bias, self.gate_logit

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        """Accept released gates, which are shares; 0 and 1, which no logit has, become 1e-6 off."""
        gate = state_dict.pop(prefix + 'gate', None)
        if gate is not None:
            logit = torch.logit(gate.double(), eps=1e-6)
            state_dict[prefix + 'gate_logit'] = logit.to(self.gate_logit.dtype)
        super()._load_from_state_dict(state_dict, prefix, *args)
