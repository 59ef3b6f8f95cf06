"""When whitened layers look, and when they are written in new coordinates."""

from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.optim import Optimizer

from normplug.errors import UnsuitableModelError
from normplug.whitened.base import WhitenedLayer
from normplug.whitened.decay import decay_canonical_weights
from normplug.whitened.rewrite import Rewritten, coordinates_of, rewrite
from normplug.whitened.samples import Samples

__all__ = ['Whitener', 'whitened_layers']

# What SGD and Adam keep of past gradients. Adam's squares cannot be carried over, and stay.
_MOMENTUM = ('momentum_buffer', 'exp_avg')


def whitened_layers(model: nn.Module) -> dict[str, WhitenedLayer]:
    """Return, by name, the whitened layers that train.

    Raises:
        UnsuitableModelError: the weight of one is shared with another layer, or computed.
    """
    found = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, WhitenedLayer) and layer.weight.requires_grad
    }
    owners = Counter(id(p) for m in model.modules() for p in m._parameters.values())
    for name, layer in found.items():
        if 'weight' not in layer._parameters or owners[id(layer.weight)] > 1:
            raise UnsuitableModelError(
                f'{name}: the weight of a whitened layer must be a parameter of its own, and this '
                'one is shared with another layer, or computed (spectral or weight norm, pruning): '
                'give it a plain conv_cfg'
            )
    return found


class Whitener:
    """Rewrites layers every ``interval`` training iterations, by what the last ``batches`` show.

    Call :meth:`before_step` before, and :meth:`after_step` after each iteration of training, with
    its number from 0; in a process group on every rank.

    Args:
        layers: by name, from :func:`whitened_layers`.
        optimizers: of their parameters.
        interval: τ.
        batches: n, at most τ; each rank has its own.
        momentum: 'reset' it to 0, or 'carry' it over to the new coordinates.
        weight_decay: the optimizers' is that of the 'written' weights V, or of the 'canonical' W.

    Raises:
        ValueError: an argument is out of range, by name.
        UnsuitableModelError: see :func:`normplug.whitened.decay.decay_canonical_weights`.
    """

    def __init__(
        self,
        layers: Mapping[str, WhitenedLayer],
        optimizers: Iterable[Optimizer],
        interval: int,
        batches: int,
        momentum: str = 'reset',
        weight_decay: str = 'written',
    ) -> None:
        check_arguments(interval, batches, momentum, weight_decay)
        self.layers, self.optimizers = dict(layers), list(optimizers)
        self.interval, self.batches, self.momentum = interval, batches, momentum
        self._handles = [
            decay_canonical_weights(optimizer, self.layers.values())
            for optimizer in self.optimizers
            if weight_decay == 'canonical'
        ]

    def start(self, iteration: int) -> None:
        """Forget what an earlier training left, unless this one goes on within a noted stretch."""
        if iteration % self.interval <= self.interval - self.batches:
            for samples in self._samples():
                samples.forget()

    def before_step(self, iteration: int) -> None:
        """Let the layers note the batch, or not."""
        for layer in self.layers.values():
            layer.sampling = self._is_noted(iteration)

    def after_step(
        self, iteration: int, copies: Iterable[nn.Module] = ()
    ) -> dict[str, Rewritten] | None:
        """Gather what the layers noted; at the end of an interval, rewrite them all.

        Args:
            iteration: the number of the iteration that is done.
            copies: models with the same layers, such as moving averages, to rewrite with them.

        Returns:
            What became of each layer, if they were rewritten; one that saw nothing is not there.

        Raises:
            WhiteningError: there are too few samples, or they are not finite. No layer has changed.
        """
        if not self._is_noted(iteration):
            return None
        seen = self._samples()
        for layer in self.layers.values():
            layer.sampling = False  # what is called between iterations is no training
        for samples in seen:
            samples.gather()
        if (iteration + 1) % self.interval:
            return None
        found = {name: coordinates_of(layer, name) for name, layer in self.layers.items()}
        done = {}
        for name, new in found.items():
            if new is None:
                continue
            layer = self.layers[name]
            moments = [own for opt in self.optimizers for own in _momentum_of(opt, layer)]
            if self.momentum == 'reset':
                for tensor in (tensor for own in moments for tensor in own.values()):
                    tensor.zero_()
            for copy in copies:
                rewrite(copy.get_submodule(name), new)
            done[name] = rewrite(layer, new, moments)
        for samples in seen:
            samples.forget()
        return done

    def stop(self) -> None:
        """Note nothing more, and leave the optimizers as they were."""
        for layer in self.layers.values():
            layer.sampling = False
        for handle in self._handles:
            handle.remove()

    def _samples(self) -> list[Samples]:
        layers = self.layers.values()
        return [seen for m in layers for seen in (m.seen_in, m.seen_out) if seen is not None]

    def _is_noted(self, iteration: int) -> bool:
        return iteration % self.interval >= self.interval - self.batches


def check_arguments(interval: int, batches: int, momentum: str, weight_decay: str) -> None:
    """Raise ``ValueError`` where one is out of range, by name."""
    for key, number in (('interval', interval), ('batches', batches)):
        if type(number) is not int or number < 1:
            raise ValueError(f'{key} must be an integer from 1, got {number!r}')
    if batches > interval:
        raise ValueError(f'batches={batches} must not be more than interval={interval}')
    for key, value, choices in (
        ('momentum', momentum, ('carry', 'reset')),
        ('weight_decay', weight_decay, ('written', 'canonical')),
    ):
        if value not in choices:
            raise ValueError(f'{key} must be one of {choices}, got {value!r}')


def _momentum_of(optimizer: Optimizer, layer: WhitenedLayer) -> list[dict[str, torch.Tensor]]:
    """For each kind of momentum, that of the layer's weight and bias."""
    kinds = []
    for kind in _MOMENTUM:
        own = {
            name: optimizer.state[parameter][kind]
            for name, parameter in (('weight', layer.weight), ('bias', layer.bias))
            if parameter is not None and optimizer.state.get(parameter, {}).get(kind) is not None
        }
        if own:
            kinds.append(own)
    return kinds
