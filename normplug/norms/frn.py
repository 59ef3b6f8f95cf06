"""Filter Response Normalization, without the activation that the paper puts behind it.

Singh and Krishnan, "Filter Response Normalization Layer: Eliminating Batch Dependence in the
Training of Deep Neural Networks", CVPR 2020, equations 1 and 2: with ν² the mean of x² over the
pixels of an image's channel, y = γ x / sqrt(ν² + ε) + β. Nothing is centred, and there are no batch
statistics: training and evaluation are the same. For maps of few pixels ε can be learned: of one
pixel x / |x| would be left.
"""

from functools import partial

import torch
from torch import Tensor

from normplug.norms.base import BaseNorm
from normplug.ops import Rule
from normplug.stats import Affine, Moments

__all__ = ['FRN']


def frn_rule(
    instance: Moments, batch: None, weight: Tensor, bias: Tensor, *learned: Tensor, eps: float
) -> Affine:
    """y = γ x / sqrt(ν² + ε) + β, about the instance mean. ``learned``: none, or ε_l, (1,)."""
    square = instance.var + instance.mean.square() + eps
    for part in learned:
        square = square + part.abs()
    scale = weight * torch.rsqrt(square)
    return Affine(scale, bias + instance.mean * scale)


class FRN(BaseNorm):
    """Filter Response Normalization for (N, C) and (N, C, *spatial) inputs.

    The thresholded activation (TLU) of the paper is left out: the model's own one stays.

    Args:
        num_features: C.
        eps: ε, added to the mean square. mmcv sets 1e-5 where ``norm_cfg`` has none.
        momentum: has no effect; taken because the norm_cfg of a batch norm may have it.
        learned_eps: add |ε_l| to it, with ε_l a parameter.
        frozen: train nothing; see :class:`BaseNorm`.

    Attributes:
        eps_l: ε_l, (1,), with ``learned_eps``; initially 1e-4.
    """

    _on_foreign_checkpoint = (
        'It has no eps_l, which stays 1e-4; weight and bias are used; the activations will change.'
    )
    batch_from = None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-6,
        momentum: float | None = 0.1,
        *,
        learned_eps: bool = False,
        frozen: bool = False,
    ) -> None:
        super().__init__(num_features, eps, momentum, frozen=frozen)
        self._require(
            isinstance(learned_eps, bool), f'learned_eps must be True or False, got {learned_eps!r}'
        )
        self.learned_eps = learned_eps
        if learned_eps:
            self.add_parameter('eps_l', (1,), 1e-4)

    def rule(self, x: Tensor) -> Rule:
        """Division by the root mean square of each image's channel."""
        return partial(frn_rule, eps=self.eps)

    def rule_params(self) -> tuple[Tensor, ...]:
        """γ, β and ε_l, if it is learned."""
        own = (self.eps_l,) if self.learned_eps else ()
        return self.weight, self.bias, *own

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        return f'{super().extra_repr()}, learned_eps={self.learned_eps}'
