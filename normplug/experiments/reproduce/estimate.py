"""How long a training takes, from a few of its iterations."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner

from normplug.launch.runner import build_runner
from normplug.preflight.config import load_config
from normplug.preflight.config_types import scope_of

from .jobs import Job

__all__ = ['estimated_seconds']

_ITERATIONS, _COUNTED = 12, 6


def estimated_seconds(
    job: Job, options: Mapping[str, Any], gpus: int, threads: int
) -> float | None:
    """Of a training on this machine, without its evaluations; None if it could not be measured.

    The time of an iteration is measured on one process, and ``gpus`` of them are taken to be as
    fast, each.

    Args:
        job: the training.
        options: of the command line, for its config.
        gpus: processes that share the training.
        threads: of each.
    """
    command = [sys.executable, '-m', __name__, job.config, json.dumps(options)]
    env = {'OMP_NUM_THREADS': str(threads), **os.environ}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"seconds"')]
    if done.returncode or not lines:
        return None
    measured = json.loads(lines[-1])
    train = job.cfg.train_cfg
    if train.get('max_iters') is not None:
        return measured['seconds'] * train.max_iters
    images = gpus * job.cfg.train_dataloader.batch_size
    return measured['seconds'] * train.max_epochs * math.ceil(measured['images'] / images)


def _measure(config: str, options: dict[str, Any]) -> None:
    cfg = load_config(config)
    cfg.merge_from_dict(options)
    with tempfile.TemporaryDirectory() as folder:
        runner = build_runner(_shortened(cfg, folder))
        with DefaultScope.overwrite_default_scope(scope_of(cfg)):
            images = len(DATASETS.build(cfg.train_dataloader.dataset))
        Runner.train(runner)
        times = runner.message_hub.get_scalar('train/time').data[0][-_COUNTED:]
    print(json.dumps({'seconds': float(sorted(times)[len(times) // 2]), 'images': images}))


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
    _measure(sys.argv[1], json.loads(sys.argv[2]))
