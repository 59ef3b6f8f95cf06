"""Running statistics of n batches of training data, before each validation."""

from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from normplug.hooks.of_runner import unwrapped
from normplug.population import (
    PopulationError,
    batches_of_all_ranks,
    estimate_population,
    live_norms,
    population_loader,
)
from normplug.random_state import get_random_state, set_random_state

__all__ = ['BatchAverageHook']


@HOOKS.register_module()
class BatchAverageHook(Hook):
    """Recompute the running statistics of all norms before validation ("batch average").

    Mean and variance over ``num_batches`` batches of each rank, without augmentation, in the place
    of the moving averages: of ours and of torch's batch norms, unless they are frozen
    (:func:`normplug.population.estimate_population`). Every time of the same samples. Training
    goes on from these statistics, and with the random numbers that it would have had.

    The checkpoint of an epoch (or iteration) that is validated holds what was validated. With an
    ``EMAHook`` that is the averaged model, whose statistics are recomputed then.

    Args:
        num_batches: on each rank; or one pass over the data, if that is less.
        dataloader: config of the batches; by default the training data and batch size, with the
            pipeline for validation.

    Raises:
        ValueError: ``num_batches`` is no integer from 1.
        PopulationError: the model has no such norm, or its features are NaN or infinite.
    """

    priority = 'LOW'  # after EMAHook has averaged, before a checkpoint is written

    def __init__(self, num_batches: int = 200, dataloader: dict | None = None) -> None:
        if type(num_batches) is not int or num_batches < 1:
            raise ValueError(
                f'BatchAverageHook: num_batches must be an integer from 1, got {num_batches!r}'
            )
        self.num_batches = num_batches
        self.dataloader = dataloader
        self._loader: DataLoader | None = None
        self._iteration: int | None = None  # for which the statistics are

    def before_train(self, runner: Runner) -> None:
        """Say at once if there is nothing to recompute."""
        if not live_norms(unwrapped(runner)):
            raise PopulationError(
                'BatchAverageHook: the model has no norm whose running statistics a training '
                'moves; remove the hook'
            )

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Before the checkpoint of an iteration that is validated."""
        done = runner.iter + 1
        if not _by_epoch(runner) and _is_validated(runner, done, runner.max_iters):
            self._recompute(runner, done)

    def after_train_epoch(self, runner: Runner, *args, **kwargs) -> None:
        """Before the checkpoint of an epoch that is validated."""
        if _by_epoch(runner) and _is_validated(runner, runner.epoch + 1, runner.max_epochs):
            self._recompute(runner, runner.iter)

    def before_val(self, runner: Runner) -> None:
        """Before a validation that could not be foreseen."""
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
            model = unwrapped(runner)
            ema = next((hook for hook in runner.hooks if isinstance(hook, EMAHook)), None)
            validated = ema.ema_model.module if ema else model
            unseen = estimate_population(validated, self._loader, number)
            if ema and not ema.ema_model.update_buffers:
                # Validation then takes parameters from the copy and buffers from the model.
                for name, layer in live_norms(validated).items():
                    model.get_submodule(name).running_mean.copy_(layer.running_mean)
                    model.get_submodule(name).running_var.copy_(layer.running_var)
        finally:
            set_random_state(state)
        runner.logger.info(f'running statistics recomputed from {number} batches')
        if unseen:
            runner.logger.warning(
                f'{len(unseen)} norms, {unseen[0]} among them, have no part in prediction: their '
                'running statistics stay as they were'
            )


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
