"""Measure the noise of batch statistics in a training, beside what the theory says of it."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from itertools import islice

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner, set_random_seed
from torch import nn

from normplug.errors import UnsuitableModelError
from normplug.kalman.snapshot import undisturbed
from normplug.models.wrappers import unwrapped
from normplug.population import (
    PopulationError,
    batches_of_all_ranks,
    buffers_kept,
    modes_kept,
    population_loader,
    restarted,
    sampler_of,
)
from normplug.population.noise_recorder import NoiseRecorder, layers_with_batch_noise
from normplug.random_state import get_random_state, seed_of, set_random_state
from normplug.resume.kept import preprocessor_values, set_preprocessor_values

__all__ = ['BatchNoiseHook']


@HOOKS.register_module()
class BatchNoiseHook(Hook):
    """Log how noisy the batch statistics of each layer are, at fixed weights, beside the law.

    Every ``interval`` iterations, before the first and after the last, ``batches`` batches of the
    training go through the model's loss, forward and backward, without a step. The training goes
    on as if that had not been: parameters, buffers, gradients and random numbers are restored,
    and so are the numbers that the data preprocessor keeps. (Other state that a forward
    changes in plain attributes, as mmdet's DynamicRoIHead does, is not.)

    It covers torch's batch norms and our norms with batch statistics, but not those that whiten,
    nor MABN, CBN and EBN, whose statistics have other laws; of IBN the channels under batch norm.
    Each layer has scalars ``batch_noise/<layer>/<quantity>`` in every backend of the visualizer.
    Means and medians are over channels; those whose values are all the same are left out. Variances
    are over the batches of all ranks; statistics of all ranks (Sync types) have one batch of all
    ranks. What is not finite or not known is not logged.

    ==================================== ===========================================================
    ``mean_noise``, ``std_noise``        mean of var(μ_B)/σ_P² and of var(σ_B)/σ_P²
    ``mean_law``, ``std_law``            the law's: 1/M and the mean of (ρ + 2)/(4M), where M is
                                         ``images``
    ``mean_samples``, ``std_samples``    M by which the law would be what was measured: median of
                                         σ_P²/var(μ_B) and of σ_P²(ρ + 2)/(4 var(σ_B))
    ``images``, ``values``               N of the layer's batch, as the harmonic mean over batches,
                                         and N·H·W
    ``kurtosis``, ``kurtosis_median``    mean and median of ρ, the excess kurtosis
    ``zeta``, ``decay``                  mean of ζ, with M = ``images``, and the sum of ζγ²
    ``jacobian_trace``, ``squared_norm`` mean of (γ/σ)(M − 2) and of M(γ² + β²) for M = ``values``
    ``gamma``, ``sigma``                 means of γ and of σ_P
    ``constant_channels``                how many are left out
    ==================================== ===========================================================

    Args:
        interval: number of iterations between measurements.
        batches: of a measurement on each rank, at least 2; one pass over the data, if that is less.
        dataloader: config of the batches; by default that of the training, with its pipeline and
            batch size. Each measurement takes the same samples.

    Raises:
        ValueError: an argument is out of range, the config has no dataloader, or that of the
            option has an infinite sampler.
        UnsuitableModelError: the model has no such layer, or is no BaseModel.
        PopulationError: the dataloader has fewer than two batches.
    """

    # KN layers are linked by then, and hooks that watch an iteration do not watch yet.
    priority = 'ABOVE_NORMAL'

    def __init__(
        self, interval: int = 500, batches: int = 16, dataloader: dict | None = None
    ) -> None:
        for name, value, least in (('interval', interval, 1), ('batches', batches, 2)):
            if type(value) is not int or value < least:
                raise ValueError(
                    f'BatchNoiseHook: {name} must be an integer from {least}, got {value!r}'
                )
        self.interval, self.batches, self.dataloader = interval, batches, dataloader

    def before_train(self, runner: Runner) -> None:
        """Build the dataloader; raise at once if there is nothing to measure."""
        model = unwrapped(runner.model)
        if not isinstance(model, BaseModel):
            raise UnsuitableModelError(
                f'BatchNoiseHook: {type(model).__name__} is no BaseModel of mmengine, whose loss '
                'the hook could call; remove the hook'
            )
        with modes_kept(model):
            model.train()
            if not layers_with_batch_noise(model):
                raise UnsuitableModelError(
                    'BatchNoiseHook: the model has no layer that trains with the mean and variance '
                    'of a batch (frozen=True and norm_eval keep theirs; layers that whiten, MABN, '
                    'CBN and EBN have others, group and layer norm none); remove the hook'
                )
        state = get_random_state()
        self._loader = population_loader(runner.cfg, self.dataloader, runner.seed, augmented=True)
        set_random_state(state)
        sampler = sampler_of(self._loader)
        if isinstance(sampler, InfiniteSampler):
            raise ValueError(
                f'BatchNoiseHook: dataloader.sampler {type(sampler).__name__} goes on from '
                'measurement to measurement, which would have other samples each time: use '
                "sampler=dict(type='DefaultSampler', shuffle=True)"
            )
        self._number = batches_of_all_ranks(self._loader, self.batches)
        if self._number < 2:
            raise PopulationError(
                'BatchNoiseHook: the dataloader has fewer than 2 batches, over which nothing '
                'varies: lower batch_size of train_dataloader, or set the option dataloader of '
                'the hook'
            )

    def before_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Measure before the first iteration and after every ``interval``."""
        if runner.iter % self.interval == 0:
            self._measure(runner)

    def after_train(self, runner: Runner) -> None:
        """Measure after the last iteration."""
        model = unwrapped(runner.model)
        with modes_kept(model):
            model.train()  # a validation may have been the last
            self._measure(runner)

    def _measure(self, runner: Runner) -> None:
        model, wrapper = unwrapped(runner.model), runner.optim_wrapper
        scaler = getattr(wrapper, 'loss_scaler', None)  # of AMP in float16
        scale = 1.0 if scaler is None else float(scaler.get_scale())
        with ExitStack() as stack:
            stack.enter_context(undisturbed(model))
            _use_twins(model)
            stack.enter_context(torch.enable_grad())
            stack.callback(set_preprocessor_values, model, preprocessor_values(model))
            set_random_seed(seed_of(runner.seed, get_rank()))  # of samples made in this process
            # Modes are those of training, in which some layers may be frozen.
            layers = layers_with_batch_noise(model)
            recorder = NoiseRecorder(layers, scale)
            stack.enter_context(recorder.watching())
            stack.enter_context(restarted(self._loader))
            for data in islice(self._loader, self._number):
                # Each wrapper of several has a context of its own, for parts that only it knows.
                is_one = not isinstance(wrapper, OptimWrapperDict)
                context = wrapper.optim_context(model) if is_one else nullcontext()
                with buffers_kept(layers.values()):  # PN normalizes by what each batch moves
                    with context:
                        inputs = model.data_preprocessor(data, True)
                        losses = model._run_forward(inputs, mode='loss')
                    loss, _ = model.parse_losses(losses)
                    if loss.requires_grad:
                        (loss * scale).backward()
                recorder.end_batch()
            records = recorder.records()
        missing = [name for name, record in records.items() if not record]
        if missing:
            runner.logger.warning(
                f'batch noise: no record of {len(missing)} layers ({missing[0]} first), which got '
                'fewer than two batches, or NaN or infinite values'
            )
        scalars = {
            f'batch_noise/{name}/{quantity}': value
            for name, record in records.items()
            for quantity, value in record.items()
        }
        if scalars:
            runner.visualizer.add_scalars(scalars, step=runner.iter)


def _use_twins(model: nn.Module) -> None:
    """Let backward passes write to twins of the parameters, until :func:`undisturbed` ends.

    The gradients of the parameters may be waiting for a step, and DDP watches them.
    """
    twins = {p: nn.Parameter(p.detach(), p.requires_grad) for p in model.parameters()}
    for module in model.modules():
        for name, p in module._parameters.items():
            if p is not None:
                module._parameters[name] = twins[p]
