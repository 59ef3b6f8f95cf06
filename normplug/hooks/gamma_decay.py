"""Gamma decay: the regularization by the noise of batch statistics, as an explicit term."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import isfinite
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from normplug.errors import UnsuitableModelError
from normplug.hooks.decay_samples import samples_of_layers
from normplug.hooks.decay_step import DecayStep, wrappers_of
from normplug.hooks.of_runner import hook_of
from normplug.models.wrappers import unwrapped
from normplug.norms import BCN, BIN, CBN, EBN, MABN, BaseNorm
from normplug.norms.base import is_number
from normplug.norms.whitening import WhiteningNorm
from normplug.population import CURVATURES, DecayEstimate

__all__ = ['GammaDecayHook']

_KEY = 'gamma_decay'  # in a checkpoint


@HOOKS.register_module()
class GammaDecayHook(Hook):
    """Add ζγ² of each channel to the loss: what batch norm's noise of M samples does on average.

    Luo, Wang, Shao and Peng, "Towards Understanding Regularization in Batch Normalization", ICLR
    2019: ζ = (ρ + 2)/(8M) F_γ + 1/(2M) E[A''(h̄)], a constant to the gradient. The hook adds
    2 · ``scale`` · ζ · γ to the gradient of γ right before the optimizer's step: when gradients are
    unscaled (AMP), clipped, accumulated and averaged over ranks. The published strength is
    ``scale=1``. ``weight_decay`` stays what it is.

    ζ is of batch statistics. Channels without any (IBN's under instance norm) have none, and layers
    without any (SN of using_bn=False) are left out. In SN and SSN the noise is that of BN's share:
    the ratio squared times either term, that of variances the first, that of means the second. KN
    predicts from statistics of the same batch, and counts as batch norm.

    F_γ is the mean over images of (dL_j/dγ)², which backward has at hand. The loss must be a mean
    over the images of a rank. In the heads of a two-stage detector "images" are RoIs. F_γ and
    E[A''] are averaged over the steps; ρ, the excess kurtosis of the layer's input, is 0 until its
    first estimate. All are in the checkpoint, so that a resumed training goes on bit for bit.
    Nothing waits for the device, except at iterations that are logged: the scalars
    ``gamma_decay/strength``, mean ζ, and ``gamma_decay/ratio``, the mean of
    |2 ``scale`` ζ γ| / |gradient of γ| over the layers whose gradient is not 0.

    Args:
        samples: M, at least 1: the number of independent samples in a batch whose noise is meant;
            32 for that of batches of 32 images. The pixels of an image are not independent. Or what
            :class:`BatchNoiseHook` measured, for each layer: ``std_samples`` is M of the first
            term, ``mean_samples`` that of the second. Given as the path of the ``batch_noise.csv``
            of tools/plot_batch_noise.py, of which the last measurement is taken, or as
            ``{layer: dict(std_samples=…, mean_samples=…)}``.
        scale: of the strength; from 0.
        momentum: weight of a new step in the averages, in (0, 1].
        curvature: E[A''(h̄)], the second derivative of a sample's loss by its normalized value.
            'fisher': the mean over images of (dL_j/dβ)², equal to it in expectation where the loss
            is a log-likelihood. 'sigmoid': the published mean of sigmoid(h̄), for units whose own
            loss is A(h̄) − y h̄ with A' the softplus; it takes one more pass over the output.
        kurtosis_interval: iterations from one estimate of ρ to the next. The default gives a short
            training of some hundred iterations several, and not only that of the initial weights.
        kurtosis_batches: iterations of an estimate, at most ``kurtosis_interval``.
        layers: names of layers, or of modules that contain them, to restrict the hook to.

    Raises:
        ValueError: an argument is out of range.
        UnsuitableModelError: the model has no such layer, all are frozen or without batch
            statistics, one of them whitens (GW, SW, IterNorm) or is a BCN, BIN, CBN, EBN or MABN,
            or no optimizer trains its γ; ``samples`` lacks a layer; the model is compiled as a
            whole; a resumed checkpoint is of other layers.
        UserError: the file of ``samples`` is not there or is no such file.
    """

    def __init__(
        self,
        samples: float | str | Mapping[str, Mapping[str, float]],
        scale: float = 1.0,
        momentum: float = 0.01,
        curvature: str = 'fisher',
        kurtosis_interval: int = 100,
        kurtosis_batches: int = 8,
        layers: Sequence[str] | None = None,
    ) -> None:
        finite = float('inf')
        for name, value, good, needed in (
            (
                'samples',
                samples,
                isinstance(samples, (str, Mapping))
                or (is_number(samples) and 1 <= samples < finite),
                'from 1, or the path or the rows of a batch_noise.csv',
            ),
            ('scale', scale, is_number(scale) and 0 <= scale < finite, 'from 0'),
            ('momentum', momentum, is_number(momentum) and 0 < momentum <= 1, 'in (0, 1]'),
        ):
            if not good:
                raise ValueError(f'GammaDecayHook: {name} must be a number {needed}, got {value!r}')
        if curvature not in CURVATURES:
            raise ValueError(
                f'GammaDecayHook: curvature must be one of {", ".join(CURVATURES)}, got '
                f'{curvature!r}'
            )
        for name, value, most in (
            ('kurtosis_interval', kurtosis_interval, finite),
            ('kurtosis_batches', kurtosis_batches, kurtosis_interval),
        ):
            if type(value) is not int or not 1 <= value <= most:
                bound = 'from 1' if most == finite else f'in 1 to kurtosis_interval={most}'
                raise ValueError(
                    f'GammaDecayHook: {name} must be an integer {bound}, got {value!r}'
                )
        if layers is not None and not (isinstance(layers, (list, tuple)) and layers):
            raise ValueError(
                f'GammaDecayHook: layers must be a list of names, or None for all, got {layers!r}'
            )
        self.samples, self.scale, self.momentum = samples, scale, momentum
        self.curvature, self.layers = curvature, layers
        self.kurtosis_interval, self.kurtosis_batches = kurtosis_interval, kurtosis_batches
        self._decays: list[DecayStep] = []
        self._loaded: list[dict[str, Any]] | None = None

    def strengths(self) -> dict[str, Tensor]:
        """Return ζ, (C,), by the name of the layer, without ``scale``."""
        return {
            name: strength
            for decay in self._decays
            for name, strength in decay.estimate.by_layer(decay.strength()).items()
        }

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep what :meth:`before_train` restores if this is a resumed training."""
        self._loaded = checkpoint.get(_KEY) or []

    def before_train(self, runner: Runner) -> None:
        """Find the layers and their optimizers, and watch them."""
        if runner.cfg.get('compile'):
            raise UnsuitableModelError(
                'GammaDecayHook: gradients by image cannot be seen in a model that is compiled as '
                'a whole: remove the key compile (the norms are compiled anyway)'
            )
        layers = self._find(unwrapped(runner.model), runner)
        wrappers = wrappers_of(layers, runner.optim_wrapper)
        loaded, self._loaded = self._loaded, None
        resumed = loaded if runner.iter > 0 else None
        if resumed == []:
            runner.logger.warning(
                'GammaDecayHook: the checkpoint has no averages of it; they begin anew'
            )
        self._decays = []
        try:
            for wrapper, own in wrappers:
                samples = samples_of_layers(self.samples, own)
                estimate = DecayEstimate(
                    own, self.momentum, self.curvature, partial(_loss_factor, wrapper)
                )
                self._decays.append(DecayStep(wrapper, estimate, samples, self.scale))
            if resumed:
                self._load(resumed)
        except Exception:  # whatever it is: no hook may stay on the layers and the optimizers
            self.after_train(runner)
            raise
        logger = hook_of(runner.hooks, 'LoggerHook')
        self._log_interval = 0 if logger is None else logger.interval

    def _find(self, model: nn.Module, runner: Runner) -> dict[str, BaseNorm]:
        found = {n: m for n, m in model.named_modules() if isinstance(m, BaseNorm)}
        if not found:
            raise UnsuitableModelError(
                "GammaDecayHook: the model has no norm of normplug's; remove the hook, or use "
                "norm_cfg=dict(type='GhostBN') in place of type='BN'"
            )
        if self.layers is not None:
            chosen: dict[str, BaseNorm] = {}
            for prefix in self.layers:
                own = {n: m for n, m in found.items() if n == prefix or n.startswith(f'{prefix}.')}
                if not own:
                    raise UnsuitableModelError(
                        f'GammaDecayHook: layers: no norm is {prefix!r} or in it; the model has '
                        f'{", ".join(list(found)[:4])}, …'
                    )
                chosen.update(own)
            found = {name: layer for name, layer in found.items() if name in chosen}
        for kinds, what in (
            (WhiteningNorm, 'norms of variances, not of whitening'),
            ((BCN, BIN), 'a batch norm by itself, not of one with another norm'),
            ((CBN, MABN), 'statistics of one batch, not of an average over iterations'),
            (EBN, 'a deviation of each channel, not of all together'),
        ):
            other = next((n for n, m in found.items() if isinstance(m, kinds)), None)
            if other is not None:
                raise UnsuitableModelError(
                    f'GammaDecayHook: {other} is a {type(found[other]).__name__}; the theory is '
                    f'of {what}: restrict the hook by its option layers'
                )
        noisy = {n: m for n, m in found.items() if m.batch_from is not None}
        if not noisy:
            raise UnsuitableModelError(
                f'GammaDecayHook: none of the {len(found)} norms takes statistics of a batch, of '
                'whose noise the decay is; remove the hook, or set using_bn=True (SN, SSN) or a '
                'ratio below 1 (IBN) in norm_cfg'
            )
        if len(noisy) < len(found):
            runner.logger.info(
                f'GammaDecayHook: {len(found) - len(noisy)} of {len(found)} norms have no batch '
                'statistics and are left out'
            )
        found = noisy
        trained = {n: m for n, m in found.items() if m.weight.requires_grad}
        if not trained:
            raise UnsuitableModelError(
                f'GammaDecayHook: a decay on frozen layers: none of the {len(found)} norms trains '
                'its weight; remove the hook, or frozen, frozen_stages and requires_grad=False '
                'of norm_cfg'
            )
        if len(trained) < len(found):
            runner.logger.info(
                f'GammaDecayHook: {len(found) - len(trained)} of {len(found)} norms are frozen and '
                'left out'
            )
        return trained

    def _load(self, states: list[dict[str, Any]]) -> None:
        own = [decay.estimate.state() for decay in self._decays]
        if fault := _misfit(states, own):
            raise UnsuitableModelError(
                f'GammaDecayHook: the checkpoint has averages of other layers: {fault}. Resume '
                'with the same model, frozen layers, optimizers, options of the hook; or start by '
                'load_from, without resume'
            )
        for decay, state in zip(self._decays, states, strict=True):
            decay.estimate.load_state(state)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Add the inputs of the layers in the iterations that are for ρ."""
        in_window = runner.iter % self.kurtosis_interval < self.kurtosis_batches
        logs = self._log_interval > 0 and self.every_n_inner_iters(batch_idx, self._log_interval)
        for decay in self._decays:
            decay.estimate.begin_iteration(in_window)
            decay.logs = logs

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Take ρ at the end of its iterations; log."""
        ends = runner.iter % self.kurtosis_interval == self.kurtosis_batches - 1
        for decay in self._decays:
            decay.end_iteration()
            if ends:
                decay.estimate.end_window()
        logged = [decay.logged for decay in self._decays if decay.logged is not None]
        if logged:
            values = torch.stack(logged).nanmean(0).tolist()
            for name, value in zip(('strength', 'ratio'), values, strict=True):
                if isfinite(value):
                    runner.message_hub.update_scalar(f'train/gamma_decay/{name}', value)
            for decay in self._decays:
                decay.logged = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the averages."""
        if self._decays:
            checkpoint[_KEY] = [decay.estimate.state() for decay in self._decays]

    def after_train(self, runner: Runner) -> None:
        """Leave the layers and the optimizers as they were."""
        for decay in self._decays:
            decay.remove()


def _loss_factor(wrapper: OptimWrapper) -> float:
    """By what mmengine divides the loss of each of the accumulated iterations."""
    return 1 / wrapper.scale_loss(1.0)


def _misfit(theirs: list[dict[str, Any]], own: list[dict[str, Any]]) -> str:
    """Return how the states of a checkpoint do not fit; '' if they do."""
    if len(theirs) != len(own):
        return f'those of {len(theirs)} optimizers, and {len(own)} train norms here'
    for one, here in zip(theirs, own, strict=True):
        there, channels = one['channels'], here['channels']
        if one['curvature'] != here['curvature']:
            return f'curvature={one["curvature"]!r} there and {here["curvature"]!r} here'
        for name in {**there, **channels}:
            if there.get(name) != channels.get(name):
                return (
                    f'{name} has {there.get(name, 0)} channels there and {channels.get(name, 0)} '
                    'here'
                )
    return ''
