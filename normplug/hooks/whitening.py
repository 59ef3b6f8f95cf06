"""Whitened layers: new coordinates every some iterations."""

import time
from collections.abc import Iterator

import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.optim import Optimizer

from normplug.errors import UnsuitableModelError
from normplug.hooks.of_runner import averaged_models
from normplug.models.wrappers import unwrapped
from normplug.whitened import WhitenedLayer, rewrite
from normplug.whitened.decay import decay_canonical_weights
from normplug.whitened.rewrite import coordinates_of

__all__ = ['WhiteningHook']

# What SGD and Adam keep of past gradients. Adam's squares cannot be carried over and stay.
_MOMENTUM = ('momentum_buffer', 'exp_avg')


@HOOKS.register_module()
class WhiteningHook(Hook):
    """Write whitened layers in new coordinates every ``interval`` iterations.

    In the last ``batches`` iterations of each interval the layers note mean and covariance of what
    they see in training, on all ranks; then weights and constants are rewritten so that the
    network's function stays as it is, up to truncation: see :func:`normplug.whitened.rewrite`.
    What was noted is in the checkpoint, so that a resumed training goes on bit for bit. The copies
    of an ``EMAHook`` are rewritten too. The log says how long it took, which is also the scalar
    ``whitening_time`` (s), and how far truncation moved the outputs.

    Args:
        interval: τ. Natural Neural Networks and GWNN have 1,000 on long trainings.
        batches: n, at most ``interval``; each rank has its own.
        momentum: 'carry' the optimizer's momentum over to the new coordinates, read as a step of
            the weights; or 'reset' it to 0.
        weight_decay: of which weights the optimizer's ``weight_decay`` is: the 'written' ones, V,
            or the 'canonical' ones, W, as in the same network without whitening.

    Raises:
        ValueError: an argument is out of range.
        UnsuitableModelError: the model has no whitened layer that trains; ``interval`` does not
            fit the optimizer's ``accumulative_counts``.
        WhiteningError: there are too few samples, or they are not finite. No layer has changed.
    """

    priority = 'LOW'  # after EMAHook has averaged, before a checkpoint is written

    def __init__(
        self,
        interval: int = 1000,
        batches: int = 10,
        momentum: str = 'carry',
        weight_decay: str = 'written',
    ) -> None:
        for key, value in (('interval', interval), ('batches', batches)):
            if type(value) is not int or value < 1:
                raise ValueError(f'WhiteningHook: {key} must be an integer from 1, got {value!r}')
        if batches > interval:
            raise ValueError(
                f'WhiteningHook: batches={batches} must not be more than interval={interval}'
            )
        for key, value, choices in (
            ('momentum', momentum, ('carry', 'reset')),
            ('weight_decay', weight_decay, ('written', 'canonical')),
        ):
            if value not in choices:
                raise ValueError(f'WhiteningHook: {key} must be one of {choices}, got {value!r}')
        self.interval, self.batches = interval, batches
        self.momentum, self.weight_decay = momentum, weight_decay

    def before_train(self, runner: Runner) -> None:
        """Find the layers; raise if there is nothing to do."""
        model = unwrapped(runner.model)
        self._layers = {
            name: layer
            for name, layer in model.named_modules()
            if isinstance(layer, WhitenedLayer) and layer.weight.requires_grad
        }
        if not self._layers:
            raise UnsuitableModelError(
                'WhiteningHook: the model has no whitened layer that trains; remove the hook, or '
                "use conv_cfg=dict(type='WNNConv')"
            )
        for wrapper in _wrappers(runner):
            count = wrapper._accumulative_counts
            if self.interval % count:
                raise UnsuitableModelError(
                    f'WhiteningHook: interval={self.interval} must be a multiple of '
                    f'accumulative_counts={count} of optim_wrapper: gradients that wait would be '
                    'in the old coordinates'
                )
            if self.weight_decay == 'canonical':
                decay_canonical_weights(wrapper.optimizer, self._layers.values())

    def before_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Choose whether this iteration is noted."""
        noted = runner.iter % self.interval >= self.interval - self.batches
        for layer in self._layers.values():
            layer.sampling = noted

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Gather what the iteration showed; rewrite at the end of an interval."""
        done = runner.iter + 1
        if runner.iter % self.interval < self.interval - self.batches:
            return
        for layer in self._layers.values():
            for seen in (layer.seen_in, layer.seen_out):
                if seen is not None:
                    seen.gather()
        if done % self.interval == 0:
            self._rewrite(runner)

    def after_train(self, runner: Runner) -> None:
        """Note nothing in what follows."""
        for layer in self._layers.values():
            layer.sampling = False

    @torch.no_grad()
    def _rewrite(self, runner: Runner) -> None:
        start = time.perf_counter()
        # All of them first: an error changes nothing.
        found = {name: coordinates_of(layer, name) for name, layer in self._layers.items()}
        optimizers = [wrapper.optimizer for wrapper in _wrappers(runner)]
        moved = {}
        for name, new in found.items():
            layer = self._layers[name]
            moments = [own for opt in optimizers for own in _momentum_of(opt, layer)]
            if self.momentum == 'reset':
                for own in moments:
                    for tensor in own.values():
                        tensor.zero_()
                moments = []
            for copy in averaged_models(runner):
                rewrite(unwrapped(copy).get_submodule(name), new)
            moved[name] = rewrite(layer, new, moments).moved
            for seen in (layer.seen_in, layer.seen_out):
                if seen is not None:
                    seen.forget()
        took = time.perf_counter() - start
        runner.message_hub.update_scalar('train/whitening_time', took)
        most = max(moved, key=moved.get)
        truncated = f', outputs moved by up to {moved[most]:.2%} ({most})' if moved[most] else ''
        runner.logger.info(
            f'whitening: {len(found)} layers in new coordinates, {took:.2f} s{truncated}'
        )


def _wrappers(runner: Runner) -> Iterator[OptimWrapper]:
    wrapper = runner.optim_wrapper
    return iter(wrapper.values()) if not isinstance(wrapper, OptimWrapper) else iter((wrapper,))


def _momentum_of(optimizer: Optimizer, layer: nn.Module) -> list[dict]:
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
