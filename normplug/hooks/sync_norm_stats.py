"""The running statistics of all ranks made one, before anybody uses them."""

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

    Each rank's statistics are those of its own share of the data. Without this, every rank
    validates another model, and a checkpoint holds those of rank 0. Where mmengine's
    ``SyncBuffersHook`` averages the buffers, variances lose what the means of the ranks differ by;
    this hook merges them (:func:`normplug.dist.synchronize_running_stats`). Both together do no
    harm: this one comes first. The copy of the model in an ``EMAHook`` takes part.

    After an epoch means before its checkpoint. Checkpoints by iteration are
    ``ResumableCheckpointHook``'s, which synchronizes by itself: mmengine calls no hook on all ranks
    before it saves one. Without a process group this hook does nothing.
    """

    priority = 'ABOVE_NORMAL'  # before SyncBuffersHook and CheckpointHook

    def before_val(self, runner: Runner) -> None:
        """Before validation, so that all ranks evaluate the same model."""
        synchronize_models(runner)

    def before_test(self, runner: Runner) -> None:
        """Before a test in the process that trained."""
        synchronize_models(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Before the epoch's checkpoint."""
        synchronize_models(runner)
