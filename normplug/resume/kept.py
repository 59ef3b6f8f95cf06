"""Find what a training keeps from one sample or batch to the next, outside of tensors."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mmengine.dataset import Compose
from mmengine.runner import Runner
from torch import nn

__all__ = ['caching_transforms', 'preprocessor_values', 'set_preprocessor_values']

_OF_DATASET = ('dataset', 'datasets', 'pipeline', 'transform', 'transforms')
_OF_HOOK = ('switch_pipeline', 'schedule')  # mmdet's PipelineSwitchHook, mmpretrain's recipes
_PLAIN = (int, float, str, type(None))


def caching_transforms(runner: Runner) -> list[str]:
    """Name the training transforms that keep samples for later ones, as mmdet's CachedMosaic does.

    Such a transform has a container whose name contains ``cache``. This looks in the training
    dataset, in those that it wraps, and in the pipelines to which hooks switch.

    Returns:
        A text for each: its place, as in a config, and its class.
    """
    found = list(_caching(runner.train_loop.dataloader.dataset, 'train_dataloader.dataset', set()))
    for hook in runner.hooks:
        for name in _OF_HOOK:
            pipeline = vars(hook).get(name)
            if isinstance(pipeline, list) and all(isinstance(part, dict) for part in pipeline):
                pipeline = Compose(copy.deepcopy(pipeline))  # it is built when the hook switches
            found += _caching(pipeline, f'{type(hook).__name__}.{name}', set())
    return found


def _caching(node: Any, key: str, seen: set[int]) -> Iterator[str]:
    if isinstance(node, Compose):
        node = node.transforms
    if isinstance(node, (list, tuple, dict)):
        items = list(node.items() if isinstance(node, dict) else enumerate(node))
        if items and not isinstance(items[0][1], (str, int, float)):  # one of those: no transforms
            for name, value in items:
                yield from _caching(value, f'{key}.{name}', seen)
        return
    if not hasattr(node, '__dict__') or isinstance(node, (type, ModuleType, nn.Module)):
        return
    if id(node) in seen:
        return
    seen.add(id(node))
    own = vars(node)
    is_dataset = hasattr(type(node), '__getitem__')
    if not is_dataset and own.get('use_cached', True):  # mmyolo's transforms have that switch
        caches = [
            name
            for name, value in own.items()
            if 'cache' in name and isinstance(value, (list, dict, deque))
        ]
        if caches:
            yield f'{key} ({type(node).__name__})'
            return
    for name, value in own.items():
        if not is_dataset or name in _OF_DATASET:
            yield from _caching(value, f'{key}.{name}', seen)


def preprocessor_values(model: nn.Module) -> dict[str, Any]:
    """Return, by full name, the numbers, texts and tuples of them in a model's data preprocessor.

    One example is the size that mmdet's BatchSyncRandomResize has drawn for the next batches.
    """
    return {
        f'{place}.{name}': value
        for place, module in _preprocessor(model)
        for name, value in vars(module).items()
        if name != 'training' and _is_plain(value)
    }


def set_preprocessor_values(model: nn.Module, values: dict[str, Any]) -> None:
    """Set those of ``values``, as :func:`preprocessor_values` gives them, that are there."""
    for place, module in _preprocessor(model):
        for name in vars(module):
            if f'{place}.{name}' in values:
                vars(module)[name] = values[f'{place}.{name}']


def _preprocessor(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    preprocessor = getattr(model, 'data_preprocessor', None)
    if isinstance(preprocessor, nn.Module):
        yield from preprocessor.named_modules(prefix='data_preprocessor')


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, tuple) and all(map(_is_plain, value)))
