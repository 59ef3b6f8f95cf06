"""The base of SN and SSN: instance, layer and batch statistics, mixed by ratios."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from normplug.norms.base import BaseNorm
from normplug.ops import Rule
from normplug.precision import small_dtype
from normplug.stats import Affine, Moments, mix, pool, standardize

__all__ = ['SwitchableNorm', 'switch_rule']


def switch_rule(
    instance: Moments,
    batch: Moments | None,
    weight: Tensor,
    bias: Tensor,
    *ratio_params: Tensor,
    to_ratios: Callable[..., tuple[list[Tensor], list[Tensor]]],
    using_in: bool,
    eps: float,
    layer_bessel: bool = False,
    batch_bessel: bool = False,
) -> Affine:
    """Normalize by the mixed moments; pooled variances may get Bessel's correction.

    ``to_ratios`` maps the last parameters to K ratios () of means, and K of variances.
    """
    instances, channels = instance.mean.shape
    parts = [instance] if using_in else []
    layer = pool(instance, 1, keepdim=True)  # (N, 1)
    parts.append(_unbiased(layer, channels) if layer_bessel else layer)
    if batch is not None:
        parts.append(_unbiased(batch, instances) if batch_bessel else batch)
    own = instance
    if own.mean.dtype != torch.float64:
        # Means about the instance's: the ratios sum to 1, so the result is the same, and it is no
        # difference of large sums; nor is the gradient of a ratio.
        about = own.mean.detach()
        own, *parts = (Moments(part.mean - about, part.var) for part in (own, *parts))
    mixed = mix(parts, *to_ratios(*ratio_params))
    return standardize(own, mixed, weight, bias, eps)


def _unbiased(moments: Moments, count: int) -> Moments:
    return Moments(moments.mean, moments.var * (count / max(count - 1, 1)))


class SwitchableNorm(BaseNorm):
    """Base of the normalizers that mix others, for (N, C) and (N, C, *spatial) inputs.

    A subclass says, in :meth:`to_ratios`, how :meth:`ratio_params` become ratios.

    Args:
        num_features: C.
        eps: added to the mixed variance.
        momentum: weight of the new batch in the running statistics.
        using_in: mix in instance statistics. The released 1-d layer, for (N, C) inputs, has
            none: an instance then holds one value per channel, of variance 0.
        using_bn: mix in batch statistics. Without them nothing depends on the batch, and there
            are no running statistics; the papers' choice at one image per GPU.
        released_statistics: compute exactly what the released code computes: instance variances
            divided by H·W − 1 (for (N, C) inputs, layer and batch variances divided by C − 1 and
            N − 1) and a running variance without Bessel's correction.
        frozen, virtual_batch_size: see :class:`BaseNorm`.

    Attributes:
        mean_weight, var_weight: logits of the ratios in the order IN, LN, BN, as far as used:
            shape (3,) by default.
    """

    __jit_unused_properties__ = ('normalizers',)

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        using_in: bool = True,
        using_bn: bool = True,
        released_statistics: bool = False,
        frozen: bool = False,
        virtual_batch_size: int | None = None,
    ) -> None:
        self.batch_from = 0 if using_bn else None
        super().__init__(
            num_features, eps, momentum, frozen=frozen, virtual_batch_size=virtual_batch_size
        )
        self.using_in, self.using_bn = using_in, using_bn
        self.released_statistics = released_statistics
        self.instance_correction = 1 if released_statistics else 0
        self.add_ratio_state()

    def add_ratio_state(self) -> None:
        """Register what the ratios are made of."""
        for name in ('mean_weight', 'var_weight'):
            self.add_parameter(name, (len(self.normalizers),), 1.0)

    @property
    def normalizers(self) -> tuple[str, ...]:
        """The normalizers that are mixed, in the order of the logits."""
        return ('in',) * self.using_in + ('ln',) + ('bn',) * self.using_bn

    @torch.no_grad()
    def ratios(self) -> tuple[Tensor, Tensor]:
        """The ratios of means and of variances, each (K,) in the order of ``normalizers``.

        In the precision in which the rule of one rank has them: see
        :func:`normplug.precision.small_dtype`.
        """
        mean, var = self.to_ratios(*(p.to(small_dtype(p)) for p in self.ratio_params()))
        return torch.stack(mean), torch.stack(var)

    def rule(self, x: Tensor) -> Rule:
        """Moments mixed by the ratios, and the map that normalizes by them."""
        rule = partial(switch_rule, to_ratios=self.to_ratios, using_in=self.using_in, eps=self.eps)
        if not self.released_statistics or x.dim() > 2:
            return rule
        live = self.takes_batch_statistics(x)
        self._require(
            not (live and (self.synchronized or self.virtual_batch_size)),
            "released_statistics divides by one rank's N - 1 for (N, C) inputs: use type='SN' "
            'without virtual_batch_size',
        )
        return partial(rule, layer_bessel=True, batch_bessel=live)

    def tracks_unbiased(self, x: Tensor) -> bool:
        """The released code keeps the batch's variance as it is; of (N, C), it corrects both."""
        return not (self.released_statistics and x.dim() > 2)

    def scripted_ratios(self) -> tuple[Tensor, Tensor]:
        """Those of :meth:`live_ratios`, with 0 for what is not mixed."""
        mean_ratios, var_ratios = self.live_ratios()
        return self._placed(mean_ratios), self._placed(var_ratios)

    def scripted_correction(self) -> int:
        """1 for the released code's statistics."""
        return self.instance_correction

    def live_ratios(self) -> tuple[Tensor, Tensor]:
        """:meth:`ratios`, spelled out for ``torch.jit.script``, which takes no ``*`` and no map."""
        raise NotImplementedError

    def _placed(self, ratios: Tensor) -> Tensor:
        """(K,) as (3, 1), in the order IN, LN, BN."""
        first = 1 if self.using_in else 0
        none = torch.zeros_like(ratios[:1])
        parts = [none[first:], ratios, none[1 if self.using_bn else 0 :]]
        return torch.cat(parts).unsqueeze(1)

    @staticmethod
    def to_ratios(*params: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The map from :meth:`ratio_params` to K ratios () of means, and K of variances."""
        raise NotImplementedError

    def ratio_params(self) -> tuple[Tensor, ...]:
        """What the ratios are made of."""
        return self.mean_weight, self.var_weight

    def rule_params(self) -> tuple[Tensor, ...]:
        """γ, β and what the ratios are made of."""
        return self.weight, self.bias, *self.ratio_params()

    def extra_repr(self) -> str:
        """Arguments, with the normalizers that are mixed."""
        return f'{super().extra_repr()}, mixes={"+".join(self.normalizers)}'
