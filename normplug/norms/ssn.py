"""Sparse Switchable Normalization: ratios that end up one-hot.

Shao et al., "SSN: Learning Sparse Switchable Normalization via SparsestMax", CVPR 2019: the
normalizers of SN, mixed by SparsestMax instead of the softmax (section 3). Training moves a
radius from 0 to 1; on the way every ratio becomes one-hot, and is kept then.

Deviations from the released code: statistics as in SN unless ``released_statistics``; tied logits
stay on the simplex; a decided ratio keeps its place in the autograd graph, with a gradient of 0,
and is held in a buffer, so that momentum left in the optimizer cannot change it.
"""

import torch
from torch import Tensor, nn

from normplug.norms.base import BaseNorm
from normplug.norms.switchable import SwitchableNorm
from normplug.ops import at_least_single
from normplug.precision import small_dtype
from normplug.sparsestmax import sparsestmax, sparsestmax_of_parts

__all__ = ['SSN', 'SyncSSN', 'is_decided', 'one_hot', 'set_radius']


# A choice is made once and never changes. So in any average over models (EMA, SWA, mean teacher),
# the one element that is not 0 still shows what the model chose.


def is_decided(choice: Tensor) -> Tensor:
    """Return whether a choice was made: choices (..., K) → bool (..., 1)."""
    return choice.sum(-1, keepdim=True) > 0


def one_hot(choice: Tensor) -> Tensor:
    """Return ratios (..., K) for choices (..., K): 1 at the largest element."""
    index = torch.arange(choice.shape[-1], device=choice.device)
    return (index == choice.argmax(-1, keepdim=True)).to(choice.dtype)


def _ratios(logits: Tensor, radius: Tensor, choice: Tensor) -> list[Tensor]:
    """Return K ratios (): the choice (K,) if one was made, or SparsestMax of the logits (K,)."""
    decided = is_decided(choice)[0]
    ratios = sparsestmax_of_parts(logits.unbind(), radius)
    return [
        torch.where(decided, chosen, ratio)
        for chosen, ratio in zip(one_hot(choice).unbind(), ratios)  # noqa: B905 TorchScript
    ]


class SSN(SwitchableNorm, BaseNorm):
    """Sparse Switchable Normalization for (N, C) and (N, C, *spatial) inputs.

    :func:`set_radius`, or ``SSNRadiusHook``, has to move the radius while training.

    Args:
        num_features: C.
        eps: added to the mixed variance.
        momentum: weight of the new batch in the running statistics.
        using_in, using_bn, released_statistics, frozen, virtual_batch_size: see
            :class:`SwitchableNorm`.

    Attributes:
        radius: (), of SparsestMax; initially 0, which is sparsemax.
        mean_choice, var_choice: (K,), the one-hot ratios once decided, zeros before; in an
            averaged model any multiple of that, which counts as the whole.
    """

    _on_foreign_checkpoint = (
        'It has no radius and choices, so learning starts at radius 0 with equal ratios (or with '
        'its logits, if it has them for as many normalizers).'
    )

    def add_ratio_state(self) -> None:
        """Register the logits, the radius and the choices."""
        super().add_ratio_state()
        self.add_state('radius', (), 0.0)
        for name in ('mean_choice', 'var_choice'):
            self.add_state(name, (len(self.normalizers),), 0.0)

    @staticmethod
    def to_ratios(
        mean_weight: Tensor,
        var_weight: Tensor,
        radius: Tensor,
        mean_choice: Tensor,
        var_choice: Tensor,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return SparsestMax of the logits; decided ratios receive no gradient."""
        return (
            _ratios(mean_weight, radius.detach(), mean_choice.detach()),
            _ratios(var_weight, radius.detach(), var_choice.detach()),
        )

    def ratio_params(self) -> tuple[Tensor, ...]:
        """Return the logits, the radius and the choices."""
        return (
            self.mean_weight,
            self.var_weight,
            self.radius,
            self.mean_choice,
            self.var_choice,
        )

    def is_decided(self) -> Tensor:
        """Return whether the ratios of means and of variances are both decided: bool ()."""
        return is_decided(torch.stack((self.mean_choice, self.var_choice))).all()

    def live_ratios(self) -> tuple[Tensor, Tensor]:
        """For ``torch.jit.script``."""
        mean, var = self.to_ratios(
            at_least_single(self.mean_weight),
            at_least_single(self.var_weight),
            at_least_single(self.radius),
            at_least_single(self.mean_choice),
            at_least_single(self.var_choice),
        )
        return torch.stack(mean), torch.stack(var)

    def reset_ratios(self) -> None:
        """Reset to equal ratios and radius 0, to learn them again on another task."""
        self._reset('mean_weight', 'var_weight', 'radius', 'mean_choice', 'var_choice')

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        """Accept the released layout: flags, (1,), that say whether logits are the choice."""
        radius = state_dict.get(prefix + 'radius')
        if isinstance(radius, Tensor) and radius.shape == (1,):
            state_dict[prefix + 'radius'] = radius.reshape(())
        for part in ('mean', 'var'):
            logits = state_dict.get(f'{prefix}{part}_weight')
            fixed = state_dict.pop(f'{prefix}{part}_fixed', None)
            if fixed is not None and logits is not None:
                choice = nn.functional.one_hot(logits.argmax(), len(logits))
                state_dict[f'{prefix}{part}_choice'] = (choice * fixed).to(logits.dtype)
        super()._load_from_state_dict(state_dict, prefix, *args)


class SyncSSN(SSN, BaseNorm):
    """SSN whose batch statistics are those of all ranks; arguments as :class:`SSN`."""

    synchronized = True


@torch.no_grad()
def set_radius(model: nn.Module, radius: float) -> None:
    """Set the radius of every SSN in ``model``, and keep each ratio that is one-hot at it.

    All layers together take some dozen small operations, and nothing waits for the device.

    Args:
        model: contains any number of SSN; frozen ones are left as they are.
        radius: in [0, 1].

    Raises:
        ValueError: the radius is out of range.
    """
    if not 0 <= radius <= 1:
        raise ValueError(f'the radius of SSN must lie in [0, 1], got {radius!r}')
    layers = [layer for layer in model.modules() if isinstance(layer, SSN) and not layer.frozen]
    for size in {len(layer.mean_weight) for layer in layers}:
        group = [layer for layer in layers if len(layer.mean_weight) == size]
        logits = torch.stack([w for layer in group for w in (layer.mean_weight, layer.var_weight)])
        choices = [c for layer in group for c in (layer.mean_choice, layer.var_choice)]
        old = torch.stack(choices)
        value = torch.full((), radius, dtype=torch.float32, device=logits.device)
        ratios = sparsestmax(logits.to(small_dtype(logits)), value)
        # Existing choices do not change; a new one is made if a ratio is 1, up to rounding.
        least = 1 - 4 * torch.finfo(ratios.dtype).eps
        made = ~is_decided(old) & (ratios >= least).any(-1, keepdim=True)
        new = torch.where(made, ratios.round().to(old.dtype), old)
        torch._foreach_copy_(choices, list(new.unbind()))
        torch._foreach_copy_([layer.radius for layer in group], [value] * len(group))
