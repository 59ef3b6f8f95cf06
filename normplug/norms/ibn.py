"""Instance-Batch Norm: the first channels by instance norm, the others by batch norm.

Pan, Luo, Shi and Tang, "Two at Once: Enhancing Learning and Generalization Capacities via IBN-Net",
ECCV 2018, section 3.2 (the layer of IBN-Net-a). The released layer keeps two modules, IN and BN;
here both halves share one weight and one bias of shape (C,), so that BN checkpoints load by name.
"""

from functools import partial
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor

from normplug.norms.base import BaseNorm
from normplug.ops import Rule, single_source
from normplug.stats import Affine, Moments, standardize

__all__ = ['IBN', 'SyncIBN']


def ibn_rule(
    instance: Moments, batch: Moments | None, weight: Tensor, bias: Tensor, *, eps: float
) -> Affine:
    """Normalize the last channels by the batch's moments, all others by the instance's."""
    by = instance
    if batch is not None:
        channels = weight.shape[-1]  # it is (C,), or (N, C)
        half = channels - batch.mean.shape[-1]
        own = torch.arange(channels, device=weight.device) < half
        by = Moments(
            *(
                torch.where(own, of_instance, F.pad(of_batch, (half, 0)))
                for of_instance, of_batch in zip(instance, batch, strict=True)
            )
        )
    return standardize(instance, by, weight, bias, eps)


class IBN(BaseNorm):
    """Instance norm of the first ⌊ratio · C⌋ channels, batch norm of the rest.

    Args:
        num_features: C.
        eps: added to the variances.
        momentum: weight of the new batch in the running statistics.
        ratio: share of channels under instance norm, in [0, 1]; the paper's best is 0.5.
        frozen, virtual_batch_size: see :class:`BaseNorm`.

    Attributes:
        running_mean, running_var: of the batch norm part, (C − ⌊ratio · C⌋,); absent if empty.
    """

    _on_foreign_checkpoint = (
        'Its weight, bias and running statistics are used where they apply; the activations of the '
        'channels under instance norm will change.'
    )

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        ratio: float = 0.5,
        frozen: bool = False,
        virtual_batch_size: int | None = None,
    ) -> None:
        valid = isinstance(ratio, Real) and 0 <= ratio <= 1
        self._require(valid, f'ratio must lie in [0, 1], got {ratio!r}')
        half = int(num_features * ratio)
        self.batch_from = half if half < num_features else None
        super().__init__(
            num_features, eps, momentum, frozen=frozen, virtual_batch_size=virtual_batch_size
        )
        self.ratio = ratio
        self.split = half

    def rule(self, x: Tensor) -> Rule:
        """Instance norm, then batch norm, by channel."""
        return partial(ibn_rule, eps=self.eps)

    def scripted_ratios(self) -> tuple[Tensor, Tensor]:
        """Return instance ratios for the first channels, running ones for the others."""
        of_instance = single_source(0, self.weight[: self.split])
        ratios = torch.cat([of_instance, single_source(2, self.weight[self.split :])], 1)
        return ratios, ratios

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        """Accept the released layout (``IN.*``, ``BN.*``) and a batch norm's."""
        for name in ('weight', 'bias'):
            parts = [state_dict.pop(f'{prefix}{part}.{name}', None) for part in ('IN', 'BN')]
            if parts[0] is not None and parts[1] is not None:
                state_dict[prefix + name] = torch.cat(parts)
        for name in ('running_mean', 'running_var', 'num_batches_tracked'):
            value = state_dict.pop(f'{prefix}BN.{name}', state_dict.get(prefix + name))
            if value is None:
                continue
            if value.shape == (self.num_features,) and self.split > 0:
                self._warn_of_foreign_checkpoint()
                value = value[self.split :]
            state_dict[prefix + name] = value
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Arguments, with the channels under instance norm."""
        return f'{super().extra_repr()}, ratio={self.ratio} ({self.split} channels by IN)'


class SyncIBN(IBN, BaseNorm):
    """IBN whose batch norm part takes the statistics of all ranks; arguments as :class:`IBN`."""

    synchronized = True
