"""How long a training takes, from a few of its iterations."""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from normplug.launch.runner import build_runner
from normplug.preflight.config import add_config_arguments, load_config

from .jobs import Job

__all__ = ['estimated_seconds']

# What a measurement ends after: so many iterations or, where they are slow, seconds of those that
# count, but not before the least.
_ITERATIONS, _SECONDS, _AT_LEAST = 60, 60.0, 10


def estimated_seconds(job: Job, gpus: int, threads: int) -> float | None:
    """Of a training on this machine; None if it could not be measured.

    Without its evaluations and without compilation. The time of an iteration is measured on one
    process, and ``gpus`` of them are taken to be as fast, each; the time until the first is added.

    Args:
        job: the training.
        gpus: processes that share the training.
        threads: of each.
    """
    command = [sys.executable, '-m', __name__, job.config, '--cfg-options', *job.options]
    env = {'OMP_NUM_THREADS': str(threads), **os.environ}
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    whole = time.monotonic() - started
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"seconds"')]
    if done.returncode or not lines:
        return None
    measured = json.loads(lines[-1])
    train = job.cfg.train_cfg
    iterations = train.get('max_iters')
    if iterations is None:
        images = gpus * job.cfg.train_dataloader.batch_size
        iterations = train.max_epochs * math.ceil(measured['images'] / images)
    return whole - measured['training'] + measured['seconds'] * iterations


class _Enough(Exception):  # noqa: N818  it is no error
    """Ends a training that has been measured."""


class _Stopwatch(Hook):
    """The time of each iteration, loading of data included; ends the training when it knows.

    The first half does not count: it compiles and fills caches. Sizes that come up later compile
    once more, and so the rest has a median, no mean.
    """

    priority = 'VERY_LOW'

    def before_train(self, runner: Runner) -> None:
        self.times: list[float] = []
        self._began = time.monotonic()

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        now = time.monotonic()
        self.times.append(now - self._began)
        self._began = now
        count = len(self.times)
        if count == _ITERATIONS or (count >= _AT_LEAST and sum(self._counted()) > _SECONDS):
            raise _Enough

    def seconds(self) -> float:
        """Of an iteration."""
        return statistics.median(self._counted())

    def _counted(self) -> list[float]:
        return self.times[len(self.times) // 2 :]


def _measure(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    args = parser.parse_args(argv)
    cfg = load_config(args.config, args.cfg_options)
    stopwatch = _Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        runner = build_runner(_shortened(cfg, folder))
        runner.register_hook(stopwatch)
        with suppress(_Enough):
            Runner.train(runner)
    images = len(runner.train_dataloader.dataset)
    found = {'seconds': stopwatch.seconds(), 'training': sum(stopwatch.times), 'images': images}
    print(json.dumps(found))


def _shortened(cfg: Config, folder: str) -> Config:
    """The same training for a few iterations, from random weights, that leaves nothing."""
    cfg.work_dir = str(Path(folder))
    cfg.train_cfg = {'by_epoch': False, 'max_iters': _ITERATIONS, 'val_interval': 10**9}
    for key in ('val_cfg', 'val_dataloader', 'val_evaluator', 'param_scheduler'):
        cfg[key] = None
    for key in ('test_cfg', 'test_dataloader', 'test_evaluator'):
        cfg[key] = None
    cfg.default_hooks.checkpoint = None
    # Else the learning rate would be that of the end of the warm-up, on random weights.
    cfg.optim_wrapper.optimizer.lr = 1e-6
    _without_weights(cfg.model)
    return cfg


def _without_weights(node: Any) -> None:
    if isinstance(node, dict):
        if isinstance(node.get('init_cfg'), dict) and 'checkpoint' in node['init_cfg']:
            node['init_cfg'] = None
        for value in node.values():
            _without_weights(value)


if __name__ == '__main__':
    _measure(sys.argv[1:])
