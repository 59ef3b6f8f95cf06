"""Whitened layers: new coordinates every some iterations."""

import time

from mmengine.hooks import Hook
from mmengine.model import BaseAveragedModel
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from normplug.errors import UnsuitableModelError
from normplug.hooks.mean_teacher import twins_in_student
from normplug.hooks.of_runner import averaged_models
from normplug.models.wrappers import unwrapped
from normplug.whitened import WhitenedLayer, Whitener, whitened_layers
from normplug.whitened.whitener import check_arguments

__all__ = ['WhiteningHook']


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
        interval: τ. The papers have 100 to 1,000, on longer trainings than that of our pilot.
        batches: n, at most ``interval``; each rank has its own.
        momentum: 'reset' the optimizer's momentum to 0; or 'carry' it over to the new coordinates,
            read as a step of the weights.
        weight_decay: of which weights the optimizer's ``weight_decay`` is: the 'written' ones, V,
            or the 'canonical' ones, W, as in the same network without whitening.

    Raises:
        ValueError: an argument is out of range.
        UnsuitableModelError: the model has no whitened layer that trains, or averages some in a
            part of itself (a mean teacher, a momentum encoder); a weight is shared or computed;
            ``interval`` does not fit the optimizer's ``accumulative_counts``; the optimizer's decay
            cannot be that of W; ``efficient_conv_bn_eval`` is set.
        WhiteningError: there are too few samples, or they are not finite. No layer has changed.
    """

    priority = 'LOW'  # after EMAHook has averaged, before a checkpoint is written

    def __init__(
        self,
        interval: int = 50,
        batches: int = 16,
        momentum: str = 'reset',
        weight_decay: str = 'written',
    ) -> None:
        self._arguments = interval, batches, momentum, weight_decay
        try:
            check_arguments(*self._arguments)
        except ValueError as error:
            raise ValueError(f'WhiteningHook: {error}') from error

    def before_train(self, runner: Runner) -> None:
        """Find the layers; raise if there is nothing to do."""
        model = unwrapped(runner.model)
        layers = whitened_layers(model)
        _refuse_averages(model)
        if not layers:
            raise UnsuitableModelError(
                'WhiteningHook: the model has no whitened layer that trains; remove the hook, or '
                "use conv_cfg=dict(type='WNNConv')"
            )
        if runner.cfg.get('efficient_conv_bn_eval'):
            raise UnsuitableModelError(
                'WhiteningHook: efficient_conv_bn_eval reads the weights of layers past their '
                'forward, and those of whitened layers are in other coordinates: remove that key'
            )
        wrapper, interval = runner.optim_wrapper, self._arguments[0]
        wrappers = [wrapper] if isinstance(wrapper, OptimWrapper) else list(wrapper.values())
        waiting = next((n for w in wrappers if interval % (n := w._accumulative_counts)), None)
        if waiting is not None:
            raise UnsuitableModelError(
                f'WhiteningHook: interval={interval} must be a multiple of '
                f'accumulative_counts={waiting} of optim_wrapper: gradients that wait would be in '
                'the old coordinates'
            )
        self._whitener = Whitener(layers, [w.optimizer for w in wrappers], *self._arguments)
        self._whitener.start(runner.iter)

    def before_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Choose whether this iteration is noted."""
        self._whitener.before_step(runner.iter)

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Rewrite the layers at the end of an interval."""
        start = time.perf_counter()
        copies = [unwrapped(copy) for copy in averaged_models(runner)]
        done = self._whitener.after_step(runner.iter, copies)
        if done is None:
            return
        took = time.perf_counter() - start
        if not done:
            runner.logger.warning('whitening: no layer has seen anything, none is rewritten')
            return
        unseen = len(self._whitener.layers) - len(done)
        rest = f', {unseen} saw nothing and stay as they are' if unseen else ''
        runner.message_hub.update_scalar('train/whitening_time', took)
        most = max(done, key=lambda name: done[name].moved)
        moved = done[most].moved
        truncated = f', outputs moved by up to {moved:.2%} ({most})' if moved else ''
        runner.logger.info(
            f'whitening: {len(done)} layers in new coordinates, {took:.2f} s{truncated}{rest}'
        )

    def after_train(self, runner: Runner) -> None:
        """Note nothing in what follows."""
        self._whitener.stop()


def _refuse_averages(model: nn.Module) -> None:
    """Averages of V are wrong across a rewriting; those of ``EMAHook`` are rewritten too."""
    twins = twins_in_student(model, (WhitenedLayer,))
    inside = any(
        isinstance(layer, WhitenedLayer)
        for part in model.modules()
        if isinstance(part, BaseAveragedModel)
        for layer in part.modules()
    )
    if twins or inside:
        raise UnsuitableModelError(
            'WhiteningHook: a part of the model is the moving average of another (a mean teacher, '
            'a momentum encoder), and weights in different coordinates cannot be averaged: use a '
            'plain conv_cfg'
        )
