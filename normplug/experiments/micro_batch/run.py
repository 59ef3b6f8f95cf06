"""One training, in this process."""

from __future__ import annotations

import time
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from normplug.hooks.nonfinite_loss import NonFiniteLossError

__all__ = ['LAST_ITERATIONS', 'train_cell']

LAST_ITERATIONS = 50


def train_cell(cfg: Config) -> dict[str, Any]:
    """Train, evaluate at the end, and return what is recorded of it.

    Returns:
        'error': of the validation images after the last iteration, in percent; 'train_loss': the
        mean over the ``LAST_ITERATIONS``; 'seconds': from building the runner to the end of the
        evaluation; 'iterations': done; 'diverged': where the loss became NaN or Inf, the message,
        else None. With that, 'error' and 'train_loss' are None.
    """
    started = time.perf_counter()
    runner = Runner.from_cfg(cfg)
    row: dict[str, Any] = {'error': None, 'train_loss': None, 'diverged': None}
    try:
        runner.train()
    except NonFiniteLossError as error:
        row['diverged'] = str(error)
    else:
        scalars = runner.message_hub
        accuracy = scalars.get_scalar('val/accuracy/top1').current()
        row['error'] = round(100 - float(accuracy), 4)  # the metric is float32
        row['train_loss'] = float(scalars.get_scalar('train/loss').mean(LAST_ITERATIONS))
    return row | {'seconds': time.perf_counter() - started, 'iterations': runner.iter}
