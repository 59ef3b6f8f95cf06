"""Switchable Whitening: learned ratios of whitening and standardization methods.

Pan, Zhan, Shi, Tang and Luo, "Switchable Whitening for Deep Representation Learning", ICCV 2019:
x̂ = (Σ_k w'_k Σ_k + ε I)^(−1/2) (x − Σ_k w_k μ_k), with w and w' the softmax of
logits, and the root by T Newton iterations.

Deviations from the released code, unless ``released``: with ``sw_type=5`` each covariance has a
ratio of its own (released: those of BW and IW serve BN and IN too, so that they do not add up to
1), and the layer's variance is biased. In both: the running statistics start at 0 and the identity
(released: 0 and 0), move by PyTorch's momentum, and ranks are weighted by their samples.
"""

from functools import partial, reduce
from operator import add

import torch
from torch import Tensor

from normplug.covariance import Covariances, Linear, inverse_root, whiten
from normplug.norms.base import BaseNorm
from normplug.norms.whitening import WhiteningNorm
from normplug.ops import Rule
from normplug.precision import small_dtype
from normplug.stats import Moments, pool

__all__ = ['SW', 'SyncSW']

# In the order of the logits.
_SOURCES = {2: ('bw', 'iw'), 3: ('bw', 'iw', 'ln'), 5: ('bw', 'iw', 'bn', 'in', 'ln')}


def sw_rule(
    instance: Covariances,
    batch: Covariances,
    weight: Tensor,
    bias: Tensor,
    mean_logits: Tensor,
    var_logits: Tensor | None = None,
    *,
    sources: tuple[str, ...],
    eps: float,
    iterations: int,
    released: bool,
    pixels: int,
) -> Linear:
    """Whiten by the mixed means and covariances."""
    mean_ratios = mean_logits.softmax(0).unbind()
    var_ratios = mean_ratios if var_logits is None else var_logits.softmax(0).unbind()
    if released and len(sources) == 5:  # BN's and IN's parts get the ratios of BW and IW
        var_ratios = (*var_ratios[:2], *var_ratios[:2], var_ratios[4])
    whole = {'b': batch, 'i': instance}
    means, full, diagonals = [], [], []
    for source, mean_ratio, var_ratio in zip(sources, mean_ratios, var_ratios, strict=True):
        if source == 'ln':
            layer = _layer(instance, pixels if released else None)
            means.append(mean_ratio * layer.mean)
            diagonals.append(var_ratio * layer.var.expand_as(instance.mean))
            continue
        of = whole[source[0]]
        means.append(mean_ratio * of.mean)
        if source[1] == 'w':
            full.append(var_ratio * of.cov)
        else:
            diagonals.append(var_ratio * of.cov.diagonal(dim1=-2, dim2=-1).expand_as(instance.mean))
    cov = reduce(add, full)
    if diagonals:
        # Not diag_embed, which writes to a view: Inductor (torch 2.11) fails on it.
        diagonal = reduce(add, diagonals).to(cov.dtype)
        size = diagonal.shape[-1]
        identity = torch.eye(size, dtype=cov.dtype, device=cov.device)
        cov = cov + diagonal.unsqueeze(-1) * identity
    root = inverse_root(cov, eps, iterations)
    return whiten(instance.mean, reduce(add, means), root, weight, bias)


def _layer(instance: Covariances, corrected: int | None) -> Moments:
    """Those of all channels, (N, 1, 1) each; with pixels, the variance is divided by C·H·W − 1."""
    of_channels = instance.mean, instance.cov.diagonal(dim1=-2, dim2=-1)
    layer = pool(Moments(*(t.flatten(1) for t in of_channels)), 1, keepdim=True)
    mean, var = (t.unsqueeze(-1) for t in layer)
    if corrected is not None:
        count = of_channels[0].shape[1] * of_channels[0].shape[2] * corrected
        var = var * (count / max(count - 1, 1))
    return Moments(mean, var)


class SW(WhiteningNorm, BaseNorm):
    """Switchable Whitening for (N, C) and (N, C, *spatial) inputs.

    Args:
        num_features: C.
        eps: added to the diagonal of the mixed covariance.
        momentum: weight of the new batch in the running statistics (released: the old one's, 0.99).
        num_pergroup: channels that are whitened together, consecutive ones; it must divide C, and
            is C where that is less.
        sw_type: what is mixed. 2: batch and instance whitening (BW, IW); 3: and layer norm; 5: and
            batch, instance and layer norm.
        T: number of Newton's iterations; part of the definition.
        tie_weight: one vector of ratios for means and covariances.
        released: compute what the released code does: see the module.
        frozen: see :class:`BaseNorm`.

    Attributes:
        sw_mean_weight, sw_var_weight: logits of the ratios, (``sw_type``,), initially 1; of the
            sources in the order BW, IW, BN, IN, LN, as far as used. No ``sw_var_weight`` with
            ``tie_weight``.
        running_mean, running_cov: (C,) and (C / d, d, d).
    """

    _on_foreign_checkpoint = (
        'It has no running covariances and ratios that fit, so whitening keeps the initial ones. '
        'Of a batch norm, tools/convert_checkpoint.py --norm SW makes covariances of its variances.'
    )

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.01,
        *,
        num_pergroup: int = 16,
        sw_type: int = 2,
        T: int = 5,
        tie_weight: bool = False,
        released: bool = False,
        frozen: bool = False,
    ) -> None:
        self.num_pergroup = num_pergroup
        super().__init__(num_features, eps, momentum, T, frozen=frozen)
        self._require(
            type(sw_type) is int and sw_type in _SOURCES,
            f'sw_type must be one of {", ".join(map(str, _SOURCES))}, got {sw_type!r}',
        )
        for key, value in (('tie_weight', tie_weight), ('released', released)):
            self._require(type(value) is bool, f'{key} must be True or False, got {value!r}')
        self.sw_type, self.tie_weight, self.released = sw_type, tie_weight, released
        for name in ('sw_mean_weight', 'sw_var_weight')[: 1 if tie_weight else 2]:
            self.add_parameter(name, (sw_type,), 1.0)

    def block_size(self) -> int:
        """``num_pergroup``."""
        return self._divisor('num_pergroup', self.num_pergroup)

    @property
    def normalizers(self) -> tuple[str, ...]:
        """What is mixed, in the order of the logits."""
        return _SOURCES[self.sw_type]

    @torch.no_grad()
    def ratios(self) -> tuple[Tensor, Tensor]:
        """The ratios of means and of covariances, each (``sw_type``,)."""
        mean, *var = (p.to(small_dtype(p)).softmax(0) for p in self.ratio_params())
        return mean, *(var or [mean])

    def ratio_params(self) -> tuple[Tensor, ...]:
        """The logits."""
        return (self.sw_mean_weight, *(() if self.tie_weight else (self.sw_var_weight,)))

    def mixes_instances(self) -> bool:
        """Unless the ratios of IW, IN and LN are exactly 0, as logits far apart make them."""
        of_batch = torch.tensor([source[0] == 'b' for source in self.normalizers])
        return any(bool(ratios.cpu()[~of_batch].any()) for ratios in self.ratios())

    def rule(self, x: Tensor) -> Rule:
        """Whitening by the mixed moments."""
        return partial(
            sw_rule,
            sources=self.normalizers,
            eps=self.eps,
            iterations=self.T,
            released=self.released,
        )

    def rule_params(self) -> tuple[Tensor, ...]:
        """γ, β and the logits."""
        return self.weight, self.bias, *self.ratio_params()

    def _load_from_state_dict(self, state_dict, prefix, *args):
        """A layer of tied ratios has one vector for both."""
        tied = state_dict.get(f'{prefix}sw_mean_weight')
        if tied is not None and not self.tie_weight:
            state_dict.setdefault(f'{prefix}sw_var_weight', tied)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Arguments, with what is mixed."""
        tied = ', tie_weight=True' * self.tie_weight + ', released=True' * self.released
        return f'{super().extra_repr()}, mixes={"+".join(self.normalizers)}{tied}'


class SyncSW(SW, BaseNorm):
    """SW whose batch statistics are those of all ranks; arguments as :class:`SW`."""

    synchronized = True
