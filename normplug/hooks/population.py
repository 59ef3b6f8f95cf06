"""Population statistics of PN layers, estimated in the course of a training."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from normplug.errors import UnsuitableModelError
from normplug.models.wrappers import unwrapped
from normplug.norms import PN
from normplug.population import (
    batches_of_all_ranks,
    estimate_population,
    live_norms,
    modes_kept,
    population_loader,
    restarted,
    sampler_of,
)
from normplug.random_state import get_random_state, set_random_state

__all__ = ['PopulationHook']


@HOOKS.register_module()
class PopulationHook(Hook):
    """Estimate what PN layers normalize by: mean and variance, and the kurtosis of drawn noise.

    It does so for ``PN`` and ``SyncPN`` of population='estimated' when their warm-up is over, and
    every ``interval`` iterations of the training; without a warm-up (``warmup=0`` and a count of 0)
    also before the first iteration. Layers of population='running' that have a ``kurtosis`` get
    that alone, at the same times. All ranks get the same values, those of the batches of all.

    Whether a warm-up is over is looked up after each of the first ``warmup`` iterations. A layer
    that has counted fewer batches by then, such as that of a branch which is not always used, waits
    for the next iteration that ``interval`` divides.

    The batches go through the model as :func:`normplug.population.estimate_population` says: norms
    normalize by the batch. The samples differ from estimate to estimate, and are the same in a
    resumed training. Random numbers are afterwards what they were.

    Args:
        interval: iterations from one estimate to the next.
        num_batches: number of batches on each rank; one pass over the data, if that is less.
        dataloader: config of the dataloader, whose sampler has to have ``set_epoch``; by default
            that of the training, with the pipeline of the validation, so without augmentation.

    Raises:
        ValueError: an argument is out of range.
        UnsuitableModelError: the model has no layer to estimate for; the dataloader's sampler
            cannot be set.
        PopulationError: the model has a KN; the features are NaN or infinite.
    """

    priority = 'LOW'  # after EMAHook has averaged, before a checkpoint is written

    def __init__(
        self, interval: int = 200, num_batches: int = 16, dataloader: dict | None = None
    ) -> None:
        for name, value in (('interval', interval), ('num_batches', num_batches)):
            if type(value) is not int or value < 1:
                raise ValueError(f'PopulationHook: {name} must be an integer from 1, got {value!r}')
        self.interval, self.num_batches, self.dataloader = interval, num_batches, dataloader

    def before_train(self, runner: Runner) -> None:
        """Find the layers and build the dataloader; estimate where nothing is known yet.

        Before the iterations, in which hooks watch what the layers get.
        """
        model = unwrapped(runner.model)
        self._layers = {
            name: layer
            for name, layer in model.named_modules()
            if isinstance(layer, PN) and (layer.needs_estimates or _has_kurtosis(layer))
        }
        if not self._layers:
            raise UnsuitableModelError(
                'PopulationHook: the model has no PN that it could estimate anything for; remove '
                "the hook, or use norm_cfg=dict(type='PN', population='estimated'), or drawn noise "
                "(noise='var' or 'both', with samples)"
            )
        live_norms(model)  # raises where it cannot be estimated
        self._build_loader(runner)
        for layer in self._layers.values():
            layer.is_estimated = True
        counts = self._counts(self._layers)
        self._warming = {n for n, count in counts.items() if count < self._layers[n].warmup}
        cold = [n for n, count in counts.items() if count == self._layers[n].warmup == 0]
        if runner.iter == 0 and cold:
            with modes_kept(model):
                model.train()
                self._estimate(runner, cold, 0)

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Estimate if it is time for it."""
        over = set()
        done = runner.iter + 1
        is_time = done % self.interval == 0
        longest = max((self._layers[name].warmup for name in self._warming), default=0)
        # Only then the host waits for the counts. A layer that is used several times in an
        # iteration may be through with it at any of these. What does not depend on the counts so
        # far is the same in a resumed training.
        if done <= longest or (is_time and self._warming):
            counts = self._counts(self._warming)
            over = {name for name, count in counts.items() if count >= self._layers[name].warmup}
            self._warming -= over
        if is_time:
            over = self._layers.keys() - self._warming
        if over:
            self._estimate(runner, over, done)

    def _counts(self, names: Iterable[str]) -> dict[str, int]:
        """The batches that layers have counted; of all ranks, which must agree, the fewest."""
        names = sorted(names)
        counts = torch.stack([self._layers[name].num_batches_tracked for name in names])
        all_reduce(counts, 'min')
        return dict(zip(names, counts.tolist(), strict=True))

    def _estimate(self, runner: Runner, due: Collection[str], done: int) -> None:
        # In the model's order. Parts of it may be in evaluation mode by now.
        live = [(n, layer) for n, layer in self._layers.items() if n in due and layer.training]
        if not live:
            return
        model = unwrapped(runner.model)
        names = [name for name, layer in live if layer.needs_estimates]
        kurtosis = [name for name, layer in live if _has_kurtosis(layer)]
        state = get_random_state()
        try:
            sampler_of(self._loader).set_epoch(done)  # samples depend on the iteration alone
            number = batches_of_all_ranks(self._loader, self.num_batches)
            with restarted(self._loader):
                unseen = estimate_population(model, self._loader, number, names, kurtosis)
        finally:
            set_random_state(state)
        counts = {'mean and variance': len(names), 'kurtosis': len(kurtosis)}
        what = ', '.join(f'{name} of {n} layers' for name, n in counts.items() if n)
        runner.logger.info(f'population: {what}, estimated from {number} batches')
        if unseen:
            runner.logger.warning(
                f'population: {len(unseen)} norms ({unseen[0]} first) are not used in prediction; '
                'their statistics are unchanged'
            )

    def _build_loader(self, runner: Runner) -> None:
        state = get_random_state()
        self._loader = population_loader(runner.cfg, self.dataloader, runner.seed)
        set_random_state(state)
        sampler = sampler_of(self._loader)
        # The infinite one has a set_epoch too, which does nothing.
        if isinstance(sampler, InfiniteSampler) or not hasattr(sampler, 'set_epoch'):
            raise UnsuitableModelError(
                f'PopulationHook: dataloader.sampler {type(sampler).__name__} cannot be set to an '
                'iteration but goes on from estimate to estimate, so that a resumed training would '
                "see other samples: use sampler=dict(type='DefaultSampler', shuffle=True)"
            )


def _has_kurtosis(layer: PN) -> bool:
    return layer.moves_statistics and hasattr(layer, 'kurtosis')
