"""Weight decay of the weights that a whitened layer stands for."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from normplug.errors import UnsuitableModelError
from normplug.whitened.layers import WhitenedLayer, between

__all__ = ['decay_canonical_weights']


def decay_canonical_weights(optimizer: Optimizer, layers: Iterable[WhitenedLayer]) -> None:
    """Let ``weight_decay`` of ``optimizer`` be that of W = A V B, and not of V, from now on.

    The gradient of λ/2 |W|² is λ Aᵀ W Bᵀ for V, where the optimizer adds λ V. Before each step the
    difference is added to the gradient: when it is unscaled, accumulated and averaged over ranks.

    Raises:
        UnsuitableModelError: the optimizer decays weights outside of the gradient (AdamW).
    """
    if isinstance(optimizer, torch.optim.AdamW) or optimizer.defaults.get('decoupled_weight_decay'):
        raise UnsuitableModelError(
            "WhiteningHook: weight_decay='canonical' works with optimizers that add the decay to "
            f"the gradient, such as SGD, and {type(optimizer).__name__} does not: use 'written'"
        )
    by_parameter = {layer.weight: layer for layer in layers}

    @torch.no_grad()
    def before_step(optimizer: Optimizer, *args) -> None:
        for group in optimizer.param_groups:
            for parameter in group['params']:
                layer: nn.Module | None = by_parameter.get(parameter)
                if layer is None or parameter.grad is None or not group['weight_decay']:
                    continue
                right, left = (
                    None if m is None else m.T for m in (layer.in_matrix, layer.out_matrix)
                )
                of_canonical = between(layer.canonical()[0], right, left)
                parameter.grad.add_(of_canonical - parameter, alpha=group['weight_decay'])

    optimizer.register_step_pre_hook(before_step)
