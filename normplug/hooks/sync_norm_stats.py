"""Synchronize running statistics over the ranks before they are used."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from normplug.dist import synchronize_running_stats
from normplug.hooks.of_runner import averaged_models

__all__ = ['SyncNormStatsHook', 'synchronize_models']


def synchronize_models(runner: Runner) -> None:
    """Make the running statistics of ``runner``'s model, and of its EMA, those of all ranks."""
    for model in (runner.model, *averaged_models(runner)):
        synchronize_running_stats(model)


@HOOKS.register_module()
class SyncNormStatsHook(Hook):
    """Synchronize running statistics before validation, before test, and after a training epoch.

    The statistics of each rank are those of its own data. Without this hook, every rank validates
    a different model, and a checkpoint holds the statistics of rank 0. mmengine's
    ``SyncBuffersHook`` averages the buffers, which loses the part of the variance that is between
    the means of the ranks; this hook merges them correctly
    (:func:`normplug.dist.synchronize_running_stats`). Both can be used together: this one runs
    first. The copy of the model in an ``EMAHook`` is synchronized too.

    After an epoch it runs before the checkpoint. For checkpoints by iteration use
    ``ResumableCheckpointHook``, which synchronizes by itself: mmengine calls no hook on all ranks
    before it saves one. Without a process group this hook does nothing.
    """

    priority = 'ABOVE_NORMAL'  # before SyncBuffersHook and CheckpointHook

    def before_val(self, runner: Runner) -> None:
        """Synchronize before validation, so that all ranks evaluate the same model."""
        synchronize_models(runner)

    def before_test(self, runner: Runner) -> None:
        """Synchronize before a test in the process that trained."""
        synchronize_models(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Synchronize before the checkpoint of the epoch."""
        synchronize_models(runner)
