"""Check that the dataloaders, their transforms and the metrics can be built; no data is read."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.registry import DATA_SAMPLERS, METRICS, TRANSFORMS, DefaultScope
from torch.utils.data import DataLoader

from normplug.errors import UserError

from .attempt import attempt, check_arguments, check_number
from .config_types import class_of, scope_of

__all__ = ['check_evaluator', 'check_loader', 'is_infinite']

# What mmengine itself takes out of a dataloader's config.
_OF_MMENGINE = ('num_batch_per_epoch', 'disable_subprocess_warning')
# Metrics that neither read, write nor download when built without these arguments.
_BUILT_METRICS = {'CocoMetric', 'VOCMetric', 'IoUMetric', 'Accuracy', 'SingleLabelMetric'}
_FILES = ('ann_file', 'output_dir')
_RESIZES = {'Resize', 'RandomResize'}


def check_loader(key: str, loader: dict, scope: str | None) -> None:
    """Check a dataloader's arguments, those of its sampler, and its transforms by building them.

    Raises:
        UserError: names the config key.
    """
    for name, least in (('batch_size', 1), ('num_workers', 0), ('prefetch_factor', 1)):
        if loader.get(name) is not None or (name == 'num_workers' and name in loader):
            check_number(f'{key}.{name}', loader[name], least)
    workers = loader.get('num_workers', 0)
    for name in ('persistent_workers', 'prefetch_factor'):
        if loader.get(name) and workers == 0:
            raise UserError(
                f'{key}.{name}={loader[name]!r} needs {key}.num_workers of 1 or more; '
                f'set {name} to {False if name == "persistent_workers" else None}'
            )
    check_arguments(key, loader, DataLoader, also=_OF_MMENGINE)
    if loader.get('sampler') is None and loader.get('batch_sampler') is not None:
        raise UserError(
            f'{key}.batch_sampler needs {key}.sampler: set it to e.g. '
            "dict(type='DefaultSampler', shuffle=True)"
        )
    if key != 'train_dataloader' and is_infinite(loader, scope):
        raise UserError(f'{key}.sampler never ends; set {key}.sampler.type to DefaultSampler')
    if loader.get('shuffle') and loader.get('sampler') is not None:
        raise UserError(f"{key}.shuffle is the sampler's: set {key}.sampler.shuffle instead")
    if loader.get('batch_sampler') is not None and loader.get('drop_last'):
        raise UserError(
            f'{key}.drop_last cannot stand beside {key}.batch_sampler, which makes the batches; '
            f'set {key}.batch_sampler.drop_last if it takes that, or drop_last to False'
        )
    for name, given in (('sampler', ['dataset', 'seed']), ('batch_sampler', ['sampler'])):
        kind = class_of(loader.get(name), DATA_SAMPLERS, scope)
        if kind is not None:
            check_arguments(f'{key}.{name}', loader[name], kind, less=given)
    for place, transform, inner in _transforms(loader.get('dataset'), f'{key}.dataset', scope):
        _check_transform(place, transform, inner)


def is_infinite(loader: Any, scope: str | None) -> bool:
    """Whether the sampler of a dataloader's config never ends."""
    sampler = loader.get('sampler') if isinstance(loader, dict) else None
    kind = class_of(sampler, DATA_SAMPLERS, scope)
    return kind is not None and (issubclass(kind, InfiniteSampler) or 'Infinite' in kind.__name__)


def check_evaluator(key: str, cfg: Config) -> None:
    """Check the metrics of an evaluator by their arguments' names, common ones by building them.

    Raises:
        UserError: names the config key.
    """
    evaluator = cfg.get(key)
    if isinstance(evaluator, dict) and 'metrics' in evaluator:
        return  # an evaluator of the config's own type
    several = isinstance(evaluator, (list, tuple))
    for i, metric in enumerate(evaluator if several else [evaluator]):
        place = f'{key}.{i}' if several else key
        kind = class_of(metric, METRICS, scope_of(cfg))
        if kind is None:
            continue
        check_arguments(place, metric, kind)
        if kind.__name__ in _BUILT_METRICS:
            arguments = {k: copy.deepcopy(v) for k, v in metric.items() if k not in _FILES}
            with DefaultScope.overwrite_default_scope(scope_of(cfg)):
                attempt(place, lambda arguments=arguments: METRICS.build(arguments))


def _transforms(node: Any, key: str, scope: str | None) -> Iterator[tuple[str, dict, str | None]]:
    """Yield (config key, dict, scope) of every transform of a dataset and of those inside it."""
    if not isinstance(node, dict):
        return
    scope = node.get('_scope_', scope)
    if isinstance(node.get('pipeline'), (list, tuple)):
        for i, transform in enumerate(node['pipeline']):
            if isinstance(transform, dict):
                yield f'{key}.pipeline.{i}', transform, scope
    yield from _transforms(node.get('dataset'), f'{key}.dataset', scope)
    if isinstance(node.get('datasets'), (list, tuple)):
        for i, dataset in enumerate(node['datasets']):
            yield from _transforms(dataset, f'{key}.datasets.{i}', scope)


def _check_transform(key: str, config: dict, scope: str | None) -> None:
    kind = class_of(config, TRANSFORMS, scope)
    if kind is None or 'tokenizer' in str(config):  # would be downloaded
        return
    if kind.__name__ in _RESIZES and isinstance(config.get('scale'), str):
        raise UserError(f'{key}.scale must be a number or (width, height), got {config["scale"]!r}')
    arguments = copy.deepcopy(config)
    with DefaultScope.overwrite_default_scope(scope):
        attempt(key, lambda: TRANSFORMS.build(arguments))
