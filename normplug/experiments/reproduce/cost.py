"""What the tables cost at full scale: ``python -m normplug.experiments.reproduce.cost``.

Multiplications and additions of forward and backward are counted on random images of the recipe's
size (torch's FlopCounterMode: convolutions and matrix products; normalizers are bound by memory and
count nothing). GPU-hours follow for a sustained rate that is assumed; with ``--measure``, hours of
this machine's device from training steps that are timed, of as many images as the recipe gives one
device. Neither holds the loading of data or the evaluation.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from normplug.bench.networks import random_training_batch
from normplug.bench.timing import seconds_of
from normplug.compat.base_configs import find_config
from normplug.ops.backend import get_backend, set_backend
from normplug.preflight.config import load_config
from normplug.preflight.config_types import scope_of
from normplug.reports.provenance import provenance
from normplug.reports.tables import facts, markdown

from .tables import TABLES

__all__ = ['main_cost']

# Images of a training set, and the size of one in training: (height, width). Of clips there are
# frames too: (frames, height, width).
_SETS = {
    'coco': (117266, (800, 1200)),  # with objects; the mean aspect ratio is about 3:2
    'ade20k': (20210, (450, 600)),
    'cityscapes': (2975, (713, 713)),
    'gta5': (12403, (512, 1024)),
    'imagenet': (1281167, (224, 224)),
    'kinetics': (240436, (32, 224, 224)),  # the videos of mmaction2's list
}
_COLUMNS = ('table', 'config', 'TFLOP an image', 'images seen (million)', 'EFLOP', 'GPU-hours')
_PROG = 'python -m normplug.experiments.reproduce.cost'
_MEASURED = ('images a step', 's a step', 'hours here')


class _Job(NamedTuple):
    """A training at full scale: the size of its images or clips, and how many it sees."""

    table: str
    name: str
    cfg: Config
    size: tuple[int, ...]
    seen: float


def main_cost(argv: Sequence[str] | None = None) -> int:
    """Print a line for one row of each table, its last without KN, and return 0."""
    parser = argparse.ArgumentParser(prog=_PROG, description=__doc__)
    parser.add_argument('--tables', nargs='+', choices=TABLES, default=list(TABLES), help='of all')
    parser.add_argument('--tflops', type=float, default=20.0, help='sustained (default: 20)')
    parser.add_argument(
        '--measure',
        type=int,
        default=0,
        metavar='STEPS',
        help='time as many training steps of each on this device, after a first (default: none)',
    )
    args = parser.parse_args(argv)
    rows = []
    for job in _jobs(args.tables):
        print(f'{job.table}: {job.name}', file=sys.stderr)
        flops = _flops(job)
        row = {
            'table': job.table,
            'config': job.name,
            'TFLOP an image': f'{flops / 1e12:.3g}',
            'images seen (million)': f'{job.seen / 1e6:.3g}',
            'EFLOP': f'{flops * job.seen / 1e18:.3g}',
            'GPU-hours': f'{flops * job.seen / args.tflops / 1e12 / 3600:.0f}',
        }
        if args.measure > 0:
            images = job.cfg.train_dataloader.batch_size
            seconds = _seconds_a_step(job, images, args.measure)
            hours = seconds * job.seen / images / 3600
            row |= zip(_MEASURED, (str(images), f'{seconds:.3g}', f'{hours:.0f}'), strict=True)
        rows.append(row)
    print(markdown([*_COLUMNS, *(_MEASURED if args.measure > 0 else ())], rows))
    print(f'GPU-hours at {args.tflops:g} TFLOP/s; "here" is the backend {get_backend()!r} on:')
    own = sys.argv[1:] if argv is None else argv
    print(facts(provenance(_PROG, own, get_device())), end='')
    return 0


def _jobs(tables: Sequence[str]) -> Iterator[_Job]:
    for table in map(TABLES.get, tables):
        # KN's layers run in linked models only, and its cost here is that of the others.
        # Of those with 4 images' statistics too.
        own = [
            row
            for row in table.rows
            if row.real is not None and row.real.config.rpartition('_')[2] in _SETS
        ]
        if not own:
            continue
        row = [r for r in own if not {'kn', '64xb4'} & set(r.real.config.split('_'))][-1]
        cfg = load_config(find_config(f'normplug::{row.real.config}.py'))
        images, size = _SETS[row.real.config.rpartition('_')[2]]
        if table.name == 'ibn-gta5':
            size = _SETS['gta5'][1]
        name = row.real.config.rpartition('/')[2]
        yield _Job(table.name, name, cfg, size, _seen(cfg, images))


def _seen(cfg: Config, images: int) -> float:
    train = cfg.train_cfg
    if train.get('max_iters') is not None:
        return train.max_iters * cfg.auto_scale_lr.base_batch_size
    return train.max_epochs * images


def _flops(job: _Job) -> float:
    count = 2  # batch norm in a pooled map needs more than one
    model, data = _model(job.cfg), random_training_batch(scope_of(job.cfg), count, *job.size)
    chosen = get_backend()
    set_backend('eager')  # compiled graphs are not counted, and are not what is counted
    try:
        with FlopCounterMode(display=False) as counter:
            losses = model(**model.data_preprocessor(data, True), mode='loss')
            model.parse_losses(losses)[0].backward()
    finally:
        set_backend(chosen)
    return counter.get_total_flops() / count


def _seconds_a_step(job: _Job, images: int, steps: int) -> float:
    """The median of ``steps`` steps of SGD on one device, after one that may compile."""
    device = get_device()
    model = _model(job.cfg).to(device)
    data = random_training_batch(scope_of(job.cfg), images, *job.size)
    optim = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9))
    times = [seconds_of(lambda: model.train_step(data, optim), device) for _ in range(steps + 1)]
    return statistics.median(times[1:])


def _model(cfg: Config) -> nn.Module:
    model = cfg.model
    model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope(scope_of(cfg)):
        return MODELS.build(model).train()


if __name__ == '__main__':
    sys.exit(main_cost())
