"""Batch Renormalization: batch norm, corrected towards the running statistics.

Ioffe, "Batch Renormalization: Towards Reducing Minibatch Dependence in Batch-Normalized Models",
NIPS 2017, algorithm 1: with μ, σ the running statistics before this step's update,
r = σ_B / σ, clipped to [1/r_max, r_max], and d = (μ_B − μ) / σ, clipped to [−d_max, d_max], both
without gradient, y = γ ((x − μ_B) / σ_B · r + d) + β.

Deviation: the running statistic is PyTorch's, an average of unbiased variances, where the paper
averages standard deviations, so that the tensors of a batch norm fit.
"""

from functools import partial
from math import isfinite

import torch
from torch import Tensor, nn

from normplug.norms.base import BaseNorm, is_number
from normplug.norms.before_step import BeforeStep
from normplug.ops import Rule
from normplug.running import snapshot
from normplug.stats import Affine, Moments, standardize

__all__ = ['BRN', 'SyncBRN', 'check_bounds', 'raise_bounds']


def check_bounds(r_max: object, d_max: object) -> str | None:
    """Return what is wrong with the bounds, beginning with the key; None if they are valid."""
    if not (is_number(r_max) and r_max >= 1 and isfinite(r_max)):
        return f'r_max, the bound of r and 1/r, must be a number of at least 1, got {r_max!r}'
    if not (is_number(d_max) and d_max >= 0 and isfinite(d_max)):
        return f'd_max, the bound of |d|, must be a number of at least 0, got {d_max!r}'
    return None


def brn_rule(
    instance: Moments,
    batch: Moments,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    r_max: Tensor,
    d_max: Tensor,
    *,
    eps: float,
) -> Affine:
    """Algorithm 1 with gradients of μ_B and σ_B, but none of r and d.

    Args:
        instance, batch, weight, bias: as in any rule.
        mean, var: running statistics before the step, (C,).
        r_max, d_max: ().
        eps: added to both variances.
    """
    inverse = torch.rsqrt(var + eps)
    r = (batch.var.detach() + eps).sqrt() * inverse
    r = r.clamp(1 / r_max, r_max)
    d = ((batch.mean.detach() - mean) * inverse).clamp(-d_max, d_max)
    return standardize(instance, batch, weight * r, bias + weight * d, eps)


class BRN(BeforeStep, BaseNorm):
    """Batch Renormalization for (N, C) and (N, C, *spatial) inputs.

    With the bounds r_max = 1 and d_max = 0 training is batch norm's; where no bound is met it
    normalizes by the running statistics, as evaluation does. A training starts with the former and
    widens the bounds, by ``BRNScheduleHook`` or :func:`raise_bounds`. Evaluation is batch norm's.

    Args:
        num_features: C.
        eps: added to the variances.
        momentum: weight of the new batch in the running statistics; the paper's.
        r_max: initial bound of r and of 1/r, at least 1.
        d_max: initial bound of |d|, at least 0.
        frozen, virtual_batch_size: see :class:`BaseNorm`.

    Attributes:
        r_max, d_max: (), the bounds of now.

    Raises:
        ValueError: an argument is out of range; or activation checkpointing runs the layer a
            second time after one forward, see :class:`BeforeStep`.
    """

    _on_foreign_checkpoint = (
        'It has no r_max and d_max, which stay as norm_cfg has them. The rest is used.'
    )

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.01,
        *,
        r_max: float = 1.0,
        d_max: float = 0.0,
        frozen: bool = False,
        virtual_batch_size: int | None = None,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, frozen=frozen, virtual_batch_size=virtual_batch_size
        )
        wrong = check_bounds(r_max, d_max)
        self._require(wrong is None, str(wrong))
        self.add_state('r_max', (), float(r_max))
        self.add_state('d_max', (), float(d_max))

    def starts_as_batch_norm(self) -> bool:
        """Return whether the bounds of norm_cfg are batch norm's: a hook has to widen them."""
        return self._initial['r_max'] == 1 and self._initial['d_max'] == 0

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        if not self.starts_as_batch_norm():  # else a hook moves them
            self.warn_of_other_values(state_dict, prefix, 'r_max', 'd_max')
        super()._load_from_state_dict(state_dict, prefix, *args)

    def rule(self, x: Tensor) -> Rule:
        """Algorithm 1 in training, also of an empty batch; else batch norm's."""
        looks_back = self.training and self.moves_statistics and not self.is_batch_norm
        return partial(brn_rule if looks_back else standardize, eps=self.eps)

    def rule_params(self) -> tuple[Tensor, ...]:
        """γ and β; in training also the running statistics and the bounds as they are now."""
        if self.is_batch_norm or not (self.training and self.moves_statistics):
            return self.weight, self.bias
        mean, var, _ = snapshot(self.running())
        return self.weight, self.bias, mean, var, self.r_max.clone(), self.d_max.clone()

    def given(self, x: Tensor) -> tuple[Tensor, ...]:
        """The running statistics and the bounds."""
        return self.rule_params()[2:]

    def scripted_ratios(self) -> tuple[Tensor, Tensor]:
        """Batch norm's."""
        return self.of_running()

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        r_max, d_max = (self._initial[name] for name in ('r_max', 'd_max'))
        return f'{super().extra_repr()}, r_max={r_max:g}, d_max={d_max:g}'


class SyncBRN(BRN, BaseNorm):
    """BRN whose batch statistics are those of all ranks; arguments as :class:`BRN`.

    r and d are the same on all ranks then.
    """

    synchronized = True


@torch.no_grad()
def raise_bounds(model: nn.Module, r_max: float, d_max: float) -> None:
    """Widen the bounds of every BRN in ``model`` to these; a bound that is wider stays.

    All layers together take a few small operations, and nothing waits for the device.

    Args:
        model: contains any number of BRN; frozen ones are left as they are.
        r_max: at least 1.
        d_max: at least 0.

    Raises:
        ValueError: a bound is out of range.
    """
    wrong = check_bounds(r_max, d_max)
    if wrong is not None:
        raise ValueError(f'raise_bounds: {wrong}')
    layers = [layer for layer in model.modules() if isinstance(layer, BRN) and not layer.frozen]
    if layers:
        torch._foreach_clamp_min_([layer.r_max for layer in layers], r_max)
        torch._foreach_clamp_min_([layer.d_max for layer in layers], d_max)
