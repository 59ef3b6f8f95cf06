"""What the tables cost at full scale: ``python -m normplug.experiments.reproduce.cost``.

Multiplications and additions of forward and backward are counted on random images of the recipe's
size (torch's FlopCounterMode: convolutions and matrix products; normalizers are bound by memory and
count nothing). GPU-hours follow for a sustained rate that is assumed, not measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from normplug.bench.networks import random_batch
from normplug.compat.base_configs import find_config
from normplug.launch.config import load_config, scope_of
from normplug.ops.backend import set_backend
from normplug.reports.tables import markdown

from .tables import TABLES

__all__ = ['main_cost']

# Images of a training set, and the size of one in training: (height, width).
_SETS = {
    'coco': (117266, (800, 1200)),  # with objects; the mean aspect ratio is about 3:2
    'ade20k': (20210, (450, 600)),
    'cityscapes': (2975, (713, 713)),
    'gta5': (12403, (512, 1024)),
    'imagenet': (1281167, (224, 224)),
}
_COLUMNS = ('table', 'config', 'TFLOP an image', 'images seen (million)', 'EFLOP', 'GPU-hours')


def main_cost(argv: Sequence[str] | None = None) -> int:
    """Print a line for one row of each table, its last without KN, and return 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--tflops', type=float, default=20.0, help='sustained (default: 20)')
    args = parser.parse_args(argv)
    set_backend('eager')  # compiled graphs are not counted, and are not what is counted
    rows = [
        {
            'table': name,
            'config': config.rpartition('/')[2],
            'TFLOP an image': f'{flops / 1e12:.3g}',
            'images seen (million)': f'{seen / 1e6:.3g}',
            'EFLOP': f'{flops * seen / 1e18:.3g}',
            'GPU-hours': f'{flops * seen / args.tflops / 1e12 / 3600:.0f}',
        }
        for name, config, flops, seen in _costs()
    ]
    print(markdown(_COLUMNS, rows))
    print(f'At {args.tflops:g} TFLOP/s. torch {torch.__version__}.')
    return 0


def _costs() -> Iterator[tuple[str, str, float, float]]:
    """Table, config, FLOP of an image, images seen in a training."""
    for table in TABLES.values():
        # KN's layers run in linked models only, and its cost here is that of the others.
        # Of those with 4 images' statistics too.
        own = [row for row in table.rows if row.real is not None]
        row = [r for r in own if not {'kn', '64xb4'} & set(r.real.config.split('_'))][-1]
        cfg = load_config(find_config(f'normplug::{row.real.config}.py'))
        images, size = _SETS[row.real.config.rpartition('_')[2]]
        if table.name == 'ibn-gta5':
            size = _SETS['gta5'][1]
        print(f'{table.name}: {row.real.config}', file=sys.stderr)
        yield table.name, row.real.config, _flops(cfg, size), _seen(cfg, images)


def _seen(cfg: Config, images: int) -> float:
    train = cfg.train_cfg
    if train.get('max_iters') is not None:
        return train.max_iters * cfg.auto_scale_lr.base_batch_size
    return train.max_epochs * images


def _flops(cfg: Config, size: tuple[int, int]) -> float:
    model = _model(cfg)
    scope = scope_of(cfg)
    count = 2  # batch norm in a pooled map needs more than one
    data = random_batch(scope, count, *size)
    with FlopCounterMode(display=False) as counter:
        data = model.data_preprocessor(data, True)
        losses = model(**data, mode='loss')
        model.parse_losses(losses)[0].backward()
    return counter.get_total_flops() / count


def _model(cfg: Config) -> nn.Module:
    model = cfg.model
    model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope(scope_of(cfg)):
        return MODELS.build(model).train()


if __name__ == '__main__':
    sys.exit(main_cost())
