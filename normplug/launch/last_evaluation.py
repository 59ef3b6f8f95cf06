"""A training whose last evaluation was cut off gets it when it is resumed."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

__all__ = ['train']


class _Iterations(Hook):
    """Counts those of this process."""

    count = 0

    def after_train_iter(self, *args: object, **kwargs: object) -> None:
        self.count += 1


def train(runner: Runner) -> None:
    """Train; if no iteration was left of a resumed training, evaluate all the same.

    mmengine saves the last checkpoint before it evaluates it. A training that ends between the two
    would never be evaluated: resumed, its loop has nothing to do.
    """
    iterations = _Iterations()
    runner.register_hook(iterations)
    runner.train()
    if iterations.count == 0 and runner.val_loop is not None:
        runner.logger.info('no iteration was left to train; evaluating the last checkpoint')
        runner.val_loop.run()
