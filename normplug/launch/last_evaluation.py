"""Evaluate the last checkpoint of a resumed training if its evaluation was cut off."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

__all__ = ['train']


class _Iterations(Hook):
    """Counts the iterations of this process."""

    count = 0

    def after_train_iter(self, *args: object, **kwargs: object) -> None:
        self.count += 1


def train(runner: Runner) -> None:
    """Train; if a resumed training has no iteration left, evaluate all the same.

    mmengine saves the last checkpoint before it evaluates it. A training that ends between the two
    would never be evaluated, because its loop has nothing to do when it is resumed.
    """
    iterations = _Iterations()
    runner.register_hook(iterations)
    runner.train()
    if iterations.count == 0 and runner.val_loop is not None:
        runner.logger.info('no iteration was left to train; evaluating the last checkpoint')
        runner.val_loop.run()
