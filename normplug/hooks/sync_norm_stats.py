"""Synchronize running statistics over the ranks before they are used."""

from mmengine.dist import all_reduce, broadcast_object_list, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from normplug.dist import synchronize_running_stats
from normplug.hooks.of_runner import averaged_models
from normplug.norms import CBN, MABN

__all__ = ['SyncNormStatsHook', 'synchronize_models']


def synchronize_models(runner: Runner) -> None:
    """Make the running statistics of ``runner``'s model, and of its EMA, those of all ranks.

    What CBN remembers becomes rank 0's, and MABN's windows the average over the ranks, which all
    resume from one checkpoint.
    """
    for model in (runner.model, *averaged_models(runner)):
        synchronize_running_stats(model)
    _share_histories(runner.model)
    _average_windows(runner.model)


def _share_histories(model: nn.Module) -> None:
    layers = [layer for layer in model.modules() if isinstance(layer, CBN)]
    if not layers or get_world_size() == 1:
        return
    states = [{name: t.cpu() for name, t in layer.history.state().items()} for layer in layers]
    broadcast_object_list(states)
    for layer, state in zip(layers, states, strict=True):
        layer.history.load(state, layer.weight)


def _average_windows(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, MABN):
            all_reduce(layer.square_window, 'mean')
            all_reduce(layer.gradient_window, 'mean')


@HOOKS.register_module()
class SyncNormStatsHook(Hook):
    """Synchronize running statistics before validation, before test, and after a training epoch.

    The statistics of each rank are those of its own data. Without this hook, every rank validates
    a different model, and a checkpoint holds the statistics of rank 0. mmengine's
    ``SyncBuffersHook`` averages the buffers, which loses the part of the variance that is between
    the means of the ranks; this hook merges them correctly
    (:func:`normplug.dist.synchronize_running_stats`). Both can be used together: this one runs
    first. The copy of the model in an ``EMAHook`` is synchronized too. The iterations that CBN
    remembers become those of rank 0, and MABN's windows the average over the ranks.

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
