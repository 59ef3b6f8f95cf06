"""Reading a config, and the command-line arguments of every tool that takes one."""

from __future__ import annotations

import argparse
import os.path as osp
from collections.abc import Iterator

from mmengine.config import Config, DictAction

from normplug.compat import base_configs
from normplug.errors import UserError

from .config_types import name_operators, package_of

__all__ = ['KeyValues', 'add_config_arguments', 'iter_datasets', 'load_config']


class KeyValues(DictAction):
    """mmengine's DictAction, with an error instead of a traceback for what is not KEY=VALUE."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Check the values first."""
        for value in values:
            if not value.partition('=')[1]:
                raise argparse.ArgumentError(self, f'{value!r} is not KEY=VALUE')
        super().__call__(parser, namespace, values, option_string)


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add CONFIG and ``--cfg-options``."""
    parser.add_argument('config', help='config file, or normplug::NAME, mmdet::NAME, ...')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValues,
        metavar='KEY=VALUE',
        help='change the config, e.g. randomness.seed=1 "a.b=[1,2]" (no spaces in a value)',
    )


def load_config(path: str, options: dict | None = None) -> Config:
    """Read the config at ``path`` and merge ``options`` (from ``--cfg-options``) into it.

    A ``path`` such as ``normplug::faster_rcnn/….py`` names a config that comes with normplug, one
    such as ``mmaction::….py`` a config of that package.

    Raises:
        UserError: the file is missing or cannot be parsed, one of its ``custom_imports`` cannot be
            imported, or an option does not fit the config.
    """
    if base_configs.is_named(path):
        try:
            path = base_configs.find_config(path)
        except (FileNotFoundError, ModuleNotFoundError, ValueError) as error:
            raise UserError(f'config: {error}') from error
    if not osp.isfile(path):
        what = 'is a folder; name a file in it' if osp.isdir(path) else 'does not exist'
        raise UserError(f'config file {path} {what}')
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is code, which may raise anything
        cause = f' ({error.__cause__})' if error.__cause__ else ''
        text = f'{type(error).__name__}: {error}{cause}; correct the file'
        raise UserError(f'cannot read config {path}: {text}') from error
    try:
        cfg.merge_from_dict(options or {})
    except (KeyError, TypeError) as error:
        raise UserError(f'--cfg-options does not fit {path}: {error.args[0]}') from error
    name_operators(cfg._cfg_dict)
    if package_of(cfg) == 'mmpretrain':
        # mmpretrain's configs leave this to the tool; mmengine's own default does not stack.
        for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            if cfg.get(name):
                cfg[name].setdefault('collate_fn', {'type': 'default_collate'})
    return cfg


def iter_datasets(loader: dict, key: str) -> Iterator[tuple[str, dict]]:
    """Yield (config key, dict) of every dataset of a dataloader, those inside wrappers too.

    Args:
        loader: a dataloader's config, or a wrapper's (RepeatDataset, ConcatDataset, ...).
        key: where ``loader`` stands in the config, e.g. ``'train_dataloader'``.
    """
    inner = []
    if isinstance(loader.get('dataset'), dict):
        inner.append((f'{key}.dataset', loader['dataset']))
    for i, dataset in enumerate(loader.get('datasets') or []):
        if isinstance(dataset, dict):
            inner.append((f'{key}.datasets.{i}', dataset))
    for inner_key, dataset in inner:
        if 'dataset' in dataset or 'datasets' in dataset:
            yield from iter_datasets(dataset, inner_key)
        else:
            yield inner_key, dataset
