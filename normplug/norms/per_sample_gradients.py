"""The part of a normalizer that shows the gradients of γ and β by instance."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from normplug.ops import Plan, expand_per_instance

__all__ = ['PerSampleGradients']


class PerSampleGradients:
    """A part of :class:`normplug.norms.base.BaseNorm`.

    Attributes:
        sample_grad_hooks: what :meth:`register_sample_grad_hook` registered.
    """

    # Of the class: layers that a batch norm is converted to have no __init__ of ours.
    sample_grad_hooks = MappingProxyType({})

    def register_sample_grad_hook(self, hook: Callable[[Tensor, Tensor], Any]) -> RemovableHandle:
        """Call ``hook(to_weight, to_bias)`` whenever a backward pass reaches the layer.

        It gets the gradients of γ and β by instance, (N, C) each, of the plan's dtype, whose sums
        over N go on to the parameters. They are of this call of the layer: of a layer that is
        called twice, the hook is too. Not called for an empty batch. γ or β must take gradients.
        Copies of the layer have no such hooks.

        Raises:
            ValueError: the layer whitens: its rule takes one γ for all instances.
        """
        if not self.sample_grad_hooks:
            self.sample_grad_hooks = OrderedDict()
        handle = RemovableHandle(self.sample_grad_hooks)
        self.sample_grad_hooks[handle.id] = hook
        return handle

    def by_instance(self, params: tuple[Tensor, ...], x: Tensor, plan: Plan) -> tuple[Tensor, ...]:
        """Return a rule's parameters; with hooks on them, γ and β as (N, C), of each instance."""
        weight, bias, *more = params
        if self.sample_grad_hooks and x.shape[0] > 0 and torch.is_grad_enabled():
            watch = partial(_call_all, tuple(self.sample_grad_hooks.values()))
            weight, bias = expand_per_instance(weight, bias, x.shape[0], plan.dtype, watch)
        return weight, bias, *more


def _call_all(hooks: tuple[Callable, ...], *args: Any) -> None:
    for hook in hooks:
        hook(*args)
