"""Precise BN: recompute running statistics from training data before each validation."""

from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from normplug.models.wrappers import unwrapped
from normplug.population import (
    PopulationError,
    batches_of_all_ranks,
    estimate_population,
    live_norms,
    population_loader,
    restarted,
    running_statistics,
)
from normplug.random_state import get_random_state, set_random_state

__all__ = ['BatchAverageHook', 'PreciseBNStatsHook']


# Not PreciseBNHook: mmpretrain has one, with other arguments, for torch's batch norms alone.
@HOOKS.register_module(name=['PreciseBNStatsHook', 'BatchAverageHook'])
class PreciseBNStatsHook(Hook):
    """Recompute the running statistics of all norms before each validation ("precise BN").

    The hook replaces the moving averages by the mean and variance over ``num_batches`` batches of
    each rank, without augmentation (:func:`normplug.population.estimate_population`). It does so
    for our norms and for torch's batch norms, unless they are frozen, and takes the same samples
    every time. Training continues from these statistics, with the random numbers that it would
    have had without the hook.

    The checkpoint of a validated epoch (or iteration) holds the statistics that were validated.
    With an ``EMAHook`` these are the statistics of the averaged model.

    ``BatchAverageHook``, after the "batch average" of the SN paper, is another name of this hook.

    Args:
        num_batches: number of batches on each rank; one pass over the data, if that is less.
        dataloader: config of the dataloader; by default that of the training, with the pipeline
            of the validation.

    Raises:
        ValueError: ``num_batches`` is not an integer, or is less than 1.
        PopulationError: the model has no such norm, or its features are NaN or infinite.
    """

    priority = 'LOW'  # after EMAHook has averaged, before a checkpoint is written

    def __init__(self, num_batches: int = 200, dataloader: dict | None = None) -> None:
        if type(num_batches) is not int or num_batches < 1:
            raise ValueError(
                f'PreciseBNStatsHook: num_batches must be an integer from 1, got {num_batches!r}'
            )
        self.num_batches = num_batches
        self.dataloader = dataloader
        self._loader: DataLoader | None = None
        self._iteration: int | None = None  # of the last recomputation

    def before_train(self, runner: Runner) -> None:
        """Raise at once if there is nothing to recompute."""
        if not live_norms(unwrapped(runner.model)):
            raise PopulationError(
                'PreciseBNStatsHook: the model has no norm whose running statistics change in '
                'training; remove the hook'
            )

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Recompute before the checkpoint of an iteration that is validated."""
        done = runner.iter + 1
        if not _by_epoch(runner) and _is_validated(runner, done, runner.max_iters):
            self._recompute(runner, done)

    def after_train_epoch(self, runner: Runner, *args, **kwargs) -> None:
        """Recompute before the checkpoint of an epoch that is validated."""
        if _by_epoch(runner) and _is_validated(runner, runner.epoch + 1, runner.max_epochs):
            self._recompute(runner, runner.iter)

    def before_val(self, runner: Runner) -> None:
        """Recompute for a validation that the train loop does not schedule."""
        self._recompute(runner, runner.iter)

    def _recompute(self, runner: Runner, iteration: int) -> None:
        if iteration == self._iteration:
            return
        self._iteration = iteration
        state = get_random_state()
        try:
            if self._loader is None:
                self._loader = population_loader(runner.cfg, self.dataloader, runner.seed)
            number = batches_of_all_ranks(self._loader, self.num_batches)
            model = unwrapped(runner.model)
            ema = next((hook for hook in runner.hooks if isinstance(hook, EMAHook)), None)
            validated = unwrapped(ema.ema_model) if ema else model
            with restarted(self._loader):
                unseen = estimate_population(validated, self._loader, number)
            if ema and not ema.ema_model.update_buffers:
                # Validation then takes parameters from the copy and buffers from the model.
                for name, layer in live_norms(validated).items():
                    own = running_statistics(model.get_submodule(name))
                    for buffer, value in zip(own, running_statistics(layer), strict=True):
                        buffer.copy_(value)
        finally:
            set_random_state(state)
        runner.logger.info(f'precise BN: running statistics recomputed from {number} batches')
        if unseen:
            runner.logger.warning(
                f'precise BN: {len(unseen)} norms ({unseen[0]} first) are not used in prediction; '
                'their running statistics are unchanged'
            )


BatchAverageHook = PreciseBNStatsHook


def _by_epoch(runner: Runner) -> bool:
    return not hasattr(runner.train_loop, 'dataloader_iterator')


def _is_validated(runner: Runner, done: int, last: int) -> bool:
    """Whether a validation follows, by the rule of mmengine's loops."""
    loop = runner.train_loop
    return (
        runner.val_loop is not None
        and done >= loop.val_begin
        and (done % loop.val_interval == 0 or done == last)
    )
