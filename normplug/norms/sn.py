"""Switchable Normalization: learned ratios of instance, layer and batch statistics.

Luo, Ren, Peng, Zhang and Li, "Differentiable Learning-to-Normalize via Switchable Normalization",
ICLR 2019, equations 3 to 5: x̂ = (x − Σ_k w_k μ_k) / sqrt(Σ_k w'_k σ²_k + ε), with w and w' the
softmax of three logits each. Variances are mixed, not standard deviations.

Deviations from the released code, unless ``released_statistics``: biased instance variances (so
that a 1×1 map is no NaN), an unbiased running variance, and the running statistics start at 0
and 1 and move by PyTorch's momentum (released: 0 and 0; momentum is the old value's weight).
"""

from functools import partial

import torch
from torch import Tensor

from normplug.norms.base import BaseNorm
from normplug.ops import Rule
from normplug.stats import Affine, Moments, mix, pool, standardize

__all__ = ['SN', 'SyncSN']

# Ratio of the favoured normalizer is e^g / (e^g + K − 1): 0.9951 of three, 0.9975 of two, near
# enough to keep a loaded network's features and far enough from 1 for the logits to learn.
_LOGIT_GAP = 6.0


def sn_rule(
    instance: Moments,
    batch: Moments | None,
    weight: Tensor,
    bias: Tensor,
    mean_weight: Tensor,
    var_weight: Tensor,
    *,
    using_in: bool,
    eps: float,
    layer_factor: float = 1.0,
    batch_factor: float = 1.0,
) -> Affine:
    """Equations 3 to 5 on (N, C) moments; the factors multiply the pooled variances."""
    layer = pool(instance, 1, keepdim=True)  # (N, 1)
    parts = [instance] if using_in else []
    parts.append(Moments(layer.mean, layer.var * layer_factor))
    if batch is not None:
        parts.append(Moments(batch.mean, batch.var * batch_factor))
    mixed = mix(parts, mean_weight.softmax(0), var_weight.softmax(0))
    return standardize(instance, mixed, weight, bias, eps)


def _bessel(count: int | None) -> float:
    return 1.0 if count is None else count / max(count - 1, 1)


class SN(BaseNorm):
    """Switchable Normalization for (N, C) and (N, C, *spatial) inputs.

    Args:
        num_features: C.
        eps: added to the mixed variance.
        momentum: weight of the new batch in the running statistics.
        using_in: mix in instance statistics. The released 1-d layer, for (N, C) inputs, has
            none: an instance then holds one value per channel, of variance 0.
        using_bn: mix in batch statistics. Without them nothing depends on the batch, and there
            are no running statistics; the papers' choice at one image per GPU.
        logit_init: 'uniform' for equal ratios, as published, or 'in', 'ln', 'bn' to start at
            that normalizer: 'bn' for a backbone pretrained with BN.
        released_statistics: compute exactly what the released code computes: instance variances
            divided by H·W − 1 (for (N, C) inputs, layer and batch variances divided by C − 1 and
            N − 1) and a running variance without Bessel's correction.
        frozen: see :class:`BaseNorm`.

    Attributes:
        mean_weight, var_weight: logits of the ratios in the order IN, LN, BN, as far as used:
            shape (3,) by default.
    """

    _on_foreign_checkpoint = (
        'It has no mean_weight and var_weight that fit, so the ratios stay as initialized: '
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
    ) -> None:
        batch_from = 0 if using_bn else None
        super().__init__(num_features, eps, momentum, frozen=frozen, batch_from=batch_from)
        self.using_in, self.using_bn = using_in, using_bn
        self.logit_init = logit_init
        self.released_statistics = released_statistics
        self._require(
            logit_init == 'uniform' or logit_init in self.normalizers,
            f"logit_init must be 'uniform' or one of {self.normalizers}, got {logit_init!r}",
        )
        logits = torch.ones(len(self.normalizers))
        if logit_init != 'uniform':
            logits[self.normalizers.index(logit_init)] += _LOGIT_GAP
        self.add_parameter('mean_weight', logits)
        self.add_parameter('var_weight', logits.clone())

    @property
    def normalizers(self) -> tuple[str, ...]:
        """The normalizers that are mixed, in the order of the logits."""
        return ('in',) * self.using_in + ('ln',) + ('bn',) * self.using_bn

    @torch.no_grad()
    def ratios(self) -> tuple[Tensor, Tensor]:
        """The ratios of means and of variances, each (K,) in the order of ``normalizers``."""
        return self.mean_weight.softmax(0), self.var_weight.softmax(0)

    def rule(self, x: Tensor) -> Rule:
        """Equations 3 to 5."""
        rule = partial(sn_rule, using_in=self.using_in, eps=self.eps)
        if not self.released_statistics or x.dim() > 2:
            return rule
        n = x.shape[0] if self.takes_batch_statistics(x) else None
        self._require(
            n is None or not self.synchronized,
            "released_statistics divides by one rank's N - 1 for (N, C) inputs: use type='SN'",
        )
        return partial(rule, layer_factor=_bessel(x.shape[1]), batch_factor=_bessel(n))

    def corrections(self, x: Tensor) -> tuple[int, bool]:
        """The released code divides by H·W − 1, and keeps the batch's variance as it is."""
        return (1, False) if self.released_statistics and x.dim() > 2 else (0, True)

    def rule_params(self) -> tuple[Tensor, ...]:
        """γ, β and the logits."""
        return self.weight, self.bias, self.mean_weight, self.var_weight

    def extra_repr(self) -> str:
        """Arguments, with the normalizers that are mixed."""
        return f'{super().extra_repr()}, mixes={"+".join(self.normalizers)}'


class SyncSN(SN, BaseNorm):
    """SN whose batch statistics are those of all ranks; arguments as :class:`SN`."""

    synchronized = True
