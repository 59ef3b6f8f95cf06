"""Gamma decay at the step of an optimizer."""

from __future__ import annotations

import torch
from mmengine.optim import ApexOptimWrapper, OptimWrapper, OptimWrapperDict
from torch import Tensor
from torch.optim import Optimizer

from normplug.errors import UnsuitableModelError
from normplug.hooks.of_runner import loss_scale, wrappers_in
from normplug.norms import BaseNorm
from normplug.population import DecayEstimate

__all__ = ['DecayStep', 'wrappers_of']


class DecayStep:
    """The decay of the layers that one optimizer trains: 2 · scale · ζ · γ in the gradient of γ.

    Args:
        wrapper: of the optimizer.
        estimate: of these layers.
        samples: see :meth:`DecayEstimate.strength`.
        scale: see :class:`normplug.hooks.GammaDecayHook`.

    Attributes:
        estimate: of F_γ, E[A''] and ρ.
        logs: whether the step of this iteration keeps what is logged.
        logged: mean ζ, and the mean ratio of the layers with a gradient (NaN if none), (2,).
    """

    def __init__(
        self,
        wrapper: OptimWrapper,
        estimate: DecayEstimate,
        samples: Tensor | float,
        scale: float,
    ) -> None:
        self.estimate, self._scale = estimate, scale
        self._samples = torch.as_tensor(samples).to(estimate.means)
        self._wrapper = wrapper
        self._weights = [layer.weight for layer in estimate.layers.values()]
        self._one = torch.ones((), device=self._weights[0].device)
        self.logs, self.logged = False, None
        self._handle = wrapper.optimizer.register_step_pre_hook(self._before_step)

    def strength(self) -> Tensor:
        """Return ζ, (ΣC,)."""
        return self.estimate.strength(self._samples)

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        self.estimate.gradients.end_iteration(loss_scale(self._wrapper, self._one))
        # A fused optimizer under AMP gets scaled gradients, and leaves out the step by itself.
        overflow = getattr(optimizer, 'found_inf', None)
        self.estimate.end_step(None if overflow is None else (overflow == 0).squeeze())
        strength = self.strength()
        rates = (2 * self._scale * strength).split(self.estimate.gradients.sizes)
        taken = [
            (w, r.to(w.dtype))
            for w, r in zip(self._weights, rates, strict=True)
            if w.grad is not None
        ]
        if not taken:
            return
        weights, rates = map(list, zip(*taken, strict=True))
        decays, grads = torch._foreach_mul(rates, weights), [w.grad for w in weights]
        grad_scale = getattr(optimizer, 'grad_scale', None)
        if grad_scale is not None:
            torch._foreach_mul_(decays, grad_scale)
        if self.logs:
            of_decays, of_grads = (torch.stack(torch._foreach_norm(t)) for t in (decays, grads))
            ratio = torch.where(of_grads > 0, of_decays / of_grads, torch.nan).nanmean()
            self.logged = torch.stack((strength.mean(), ratio.to(strength.dtype)))
        torch._foreach_add_(grads, decays)

    def end_iteration(self) -> None:
        """Count an accumulated iteration; forget those of a step that AMP left out."""
        self.estimate.end_iteration()
        if self._wrapper.should_update():
            self.estimate.drop_step()
        else:
            self.estimate.gradients.end_iteration(loss_scale(self._wrapper, self._one))

    def remove(self) -> None:
        """Leave layers and optimizer as they were."""
        self._handle.remove()
        self.estimate.remove()


def wrappers_of(
    layers: dict[str, BaseNorm], wrapper: OptimWrapper | OptimWrapperDict
) -> list[tuple[OptimWrapper, dict[str, BaseNorm]]]:
    """Each wrapper that trains γ of some layers, with these."""
    left, found = dict(layers), []
    for one in wrappers_in(wrapper):
        if not isinstance(one, OptimWrapper) or isinstance(one, ApexOptimWrapper):
            raise UnsuitableModelError(
                f'GammaDecayHook does not know how {type(one).__name__} scales the loss: use '
                'OptimWrapper or AmpOptimWrapper'
            )
        groups = one.optimizer.param_groups
        trained = {id(p) for group in groups if not group.get('maximize') for p in group['params']}
        own = {name: layer for name, layer in left.items() if id(layer.weight) in trained}
        if own:
            found.append((one, own))
            left = {name: layer for name, layer in left.items() if name not in own}
    if left:
        raise UnsuitableModelError(
            f'GammaDecayHook: no optimizer of optim_wrapper minimizes by the weight of '
            f'{next(iter(left))} (of {len(left)} norms): give it to one, or leave these out by the '
            'option layers'
        )
    return found
