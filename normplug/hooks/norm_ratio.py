"""Log the learned ratios of SN, SSN and SW during a training."""

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from normplug.errors import UnsuitableModelError
from normplug.models.wrappers import unwrapped
from normplug.norms import SSN, SW
from normplug.norms.switchable import SwitchableNorm

__all__ = ['NormRatioHook']


@HOOKS.register_module()
class NormRatioHook(Hook):
    """Log the ratios of every SN, SSN and SW through the runner's visualizer.

    It writes these scalars to every backend (``LocalVisBackend`` writes vis_data/scalars.json):
    ``ratio/<layer>/mean_in`` and so on for the ``mean`` and the ``var`` of ``in``, ``ln`` and
    ``bn``, after the softmax or SparsestMax; with SW of ``bw`` and ``iw`` too, where ``var`` is the
    ratio of covariances; and with SSN ``ratio/decided_layers``, the number of
    layers that have chosen one normalizer for the mean and one for the variance. The step is the
    number of iterations done; those before the first have step 0.

    All values are copied from the device at once.

    Args:
        interval: number of iterations between logs.

    Raises:
        ValueError: ``interval`` is below 1.
        UnsuitableModelError: the model has no SN, SSN or SW.
    """

    def __init__(self, interval: int = 100) -> None:
        if interval < 1:
            raise ValueError(f'NormRatioHook: interval must be at least 1, got {interval!r}')
        self.interval = interval

    def before_train(self, runner: Runner) -> None:
        """Name the scalars; log where a new training begins."""
        model = unwrapped(runner.model)
        layers = {n: m for n, m in model.named_modules() if isinstance(m, (SwitchableNorm, SW))}
        if not layers:
            raise UnsuitableModelError(
                'NormRatioHook: the model has no SN, SSN or SW, whose ratios it logs; remove the '
                'hook'
            )
        self._layers = list(layers.values())
        self._sparse = [layer for layer in self._layers if isinstance(layer, SSN)]
        self._names = [
            f'ratio/{name}/{statistic}_{normalizer}'
            for name, layer in layers.items()
            for statistic in ('mean', 'var')
            for normalizer in layer.normalizers
        ]
        if runner.iter == 0:
            self._log(runner, 0)

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Log every ``interval`` iterations, and after the last."""
        done = runner.iter + 1
        if done % self.interval == 0 or done == runner.max_iters:
            self._log(runner, done)

    def _log(self, runner: Runner, step: int) -> None:
        values = [ratios for layer in self._layers for ratios in layer.ratios()]
        names, values = list(self._names), torch.cat(values)
        if self._sparse:
            decided = torch.stack([layer.is_decided() for layer in self._sparse]).sum()
            names, values = [*names, 'ratio/decided_layers'], torch.cat([values, decided[None]])
        scalars = dict(zip(names, values.tolist(), strict=True))
        runner.visualizer.add_scalars(scalars, step=step)
