"""Check that the files and folders exist that the dataloaders and evaluators name."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.config import Config

from normplug.errors import UserError

from ..config import iter_datasets
from ..config_types import scope_of
from .dataset_config import downloads

__all__ = ['broken_json_explained', 'check_paths', 'missing_paths']


def check_paths(cfg: Config, phases: tuple[str, ...]) -> None:
    """Check the data root, annotation file and image folders of each phase.

    Args:
        cfg: the config.
        phases: of ``'train'``, ``'val'``, ``'test'``; those that the config lacks are skipped.

    Raises:
        UserError: something is missing; the message lists every config key with its path.
    """
    missing = missing_paths(cfg, phases)
    if not missing:
        return
    lines = [f'  {key}: {path}' for key, path in missing]
    advice = f'Put the data there (paths start at {os.getcwd()}), or set the keys, ' + (
        f'e.g. --cfg-options {missing[0][0]}=PATH'
    )
    if any('digits' in path for _, path in missing):
        advice = 'Write the digits with `python -m normplug make-digits`. For other data: ' + advice
    raise UserError('\n'.join(['data of the config does not exist:', *lines, advice]))


def missing_paths(cfg: Config, phases: tuple[str, ...]) -> list[tuple[str, str]]:
    """(Config key, path) of the data of ``phases`` that do not exist."""
    missing = []
    for phase in phases:
        loader = cfg.get(f'{phase}_dataloader')
        if isinstance(loader, dict):
            for key, dataset in iter_datasets(loader, f'{phase}_dataloader'):
                if not downloads(dataset, scope_of(cfg)):
                    missing += _missing_of_dataset(key, dataset)
        missing += _missing_of_evaluator(f'{phase}_evaluator', cfg.get(f'{phase}_evaluator'))
    return missing


@contextmanager
def broken_json_explained(cfg: Config) -> Iterator[None]:
    """Turn a JSON error inside the block into a UserError that names the annotation file.

    Annotation files are not read beforehand: COCO's takes many seconds.
    """
    try:
        yield
    except json.JSONDecodeError as error:
        for key, path in _annotation_files(cfg):
            with open(path, encoding='utf-8') as file:
                try:
                    json.load(file)
                except json.JSONDecodeError as broken:
                    raise UserError(
                        f'{key}: {path} is not complete JSON ({broken}); write or download it again'
                    ) from error
        raise


def _annotation_files(cfg: Config) -> Iterator[tuple[str, str]]:
    for phase in ('train', 'val', 'test'):
        for key, dataset in iter_datasets(cfg.get(f'{phase}_dataloader') or {}, phase):
            path = os.path.join(dataset.get('data_root') or '', dataset.get('ann_file') or '')
            if path.endswith('.json') and os.path.isfile(path):
                yield f'{phase}_dataloader{key.removeprefix(phase)}.ann_file', path


def _missing_of_dataset(key: str, dataset: dict) -> Iterator[tuple[str, str]]:
    root = dataset.get('data_root') or ''
    if (dataset.get('backend_args') or {}).get('backend', 'local') != 'local':
        return
    if root and _absent(root):
        yield f'{key}.data_root', root
        return  # the rest lies below it
    prefixes = dataset.get('data_prefix') or {}
    if isinstance(prefixes, str):
        paths = {'data_prefix': prefixes}
    else:
        paths = {f'data_prefix.{name}': prefix for name, prefix in prefixes.items()}
    for name, path in {'ann_file': dataset.get('ann_file'), **paths}.items():
        if path and isinstance(path, str) and _absent(os.path.join(root, path)):
            yield f'{key}.{name}', os.path.join(root, path)


def _missing_of_evaluator(key: str, evaluator: dict | list | None) -> Iterator[tuple[str, str]]:
    if isinstance(evaluator, (list, tuple)):
        for i, metric in enumerate(evaluator):
            yield from _missing_of_evaluator(f'{key}.{i}', metric)
    elif isinstance(evaluator, dict):
        path = evaluator.get('ann_file')
        if path and isinstance(path, str) and _absent(path):
            yield f'{key}.ann_file', path


def _absent(path: str) -> bool:
    return '://' not in path and not os.path.exists(os.path.expanduser(path))
