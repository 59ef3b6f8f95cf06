"""Weight decay of the weights that a whitened layer stands for."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import SGD, Adadelta, Adagrad, Adam, AdamW, NAdam, Optimizer, RAdam, RMSprop
from torch.utils.hooks import RemovableHandle

from normplug.errors import UnsuitableModelError
from normplug.whitened.base import WhitenedLayer

__all__ = ['decay_canonical_weights']

_COUPLED = (SGD, Adam, RMSprop, Adagrad, Adadelta, NAdam, RAdam)
_ODD = ('decoupled_weight_decay', 'fused', 'maximize')


def decay_canonical_weights(
    optimizer: Optimizer, layers: Iterable[WhitenedLayer]
) -> RemovableHandle:
    """Let ``weight_decay`` of ``optimizer`` be that of W and b, and not of V and d, from now on.

    The optimizer adds λ V to the gradient; before each step the gradient of λ/2 |W|² takes its
    place: when gradients are unscaled, accumulated and averaged over ranks. Likewise for the bias,
    by the decay of its own parameter group.

    Returns:
        What ends it.

    Raises:
        UnsuitableModelError: the optimizer decays weights outside of the gradient (AdamW), is
            fused (it unscales gradients itself), maximizes, or is none of torch's common ones.
    """
    _require_coupled(optimizer)
    layers = list(layers)

    def before_step(optimizer: Optimizer, *args) -> None:
        groups = optimizer.param_groups
        decays = {p: group['weight_decay'] for group in groups for p in group['params']}
        for layer in layers:
            own = [p for p in (layer.weight, layer.bias) if p is not None and p.grad is not None]
            rates = [decays.get(p, 0) for p in own]
            if any(rates):
                _exchange(layer, own, rates)

    return optimizer.register_step_pre_hook(before_step)


def _require_coupled(optimizer: Optimizer) -> None:
    known = isinstance(optimizer, _COUPLED) and not isinstance(optimizer, AdamW)
    groups = optimizer.param_groups
    odd = next((key for key in _ODD if any(group.get(key) for group in groups)), None)
    if known and odd is None:
        return
    what = f'with {odd}=True: remove that' if known else 'and none of them: take one of them'
    raise UnsuitableModelError(
        "WhiteningHook: weight_decay='canonical' works with optimizers that add the decay to the "
        f'gradient ({", ".join(kind.__name__ for kind in _COUPLED)}), and optim_wrapper.optimizer '
        f"is {type(optimizer).__name__} {what}, or set weight_decay='written', the decay of V"
    )


def _exchange(layer: WhitenedLayer, own: list[Tensor], rates: list[float]) -> None:
    with torch.enable_grad():
        half_squares = zip(rates, layer.canonical(), strict=False)
        loss = sum(rate / 2 * t.square().sum() for rate, t in half_squares)
        grads = torch.autograd.grad(loss, own, materialize_grads=True)
    with torch.no_grad():
        for parameter, grad, rate in zip(own, grads, rates, strict=True):
            parameter.grad.add_(grad - rate * parameter)
