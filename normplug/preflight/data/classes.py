"""Check that the model has as many outputs as the datasets have classes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS
from torch import nn

from normplug.errors import UserError

from ..config import iter_datasets
from ..config_types import class_of, dicts_in, scope_of
from .classification import labels_of
from .dataset_config import (
    CLASSIFICATION,
    COCO,
    SEGMENTATION,
    build_lazily,
    is_remote,
    loads_as,
)

__all__ = ['check_num_classes']

# Heads whose labels are the dataset's; others (an RPN's, HTC's semantic one) count differently.
_HEADS = re.compile(r'(^|\.)(bbox_head|mask_head|decode_head)(\.\d+)?$|^head$')


def check_num_classes(model: nn.Module | None, cfg: Config, phases: tuple[str, ...]) -> None:
    """Compare ``num_classes`` of the model's heads with the classes of mm's own datasets.

    With too few, a training ends with an index error (on a GPU with a device-side assert). With
    too many, the evaluation of a detector fails. A segmentor or a classifier may have more.

    Args:
        model: of ``cfg``; None to take what ``cfg`` itself says of it.
        cfg: the config.
        phases: of ``'train'``, ``'val'``, ``'test'``.

    Raises:
        UserError: they do not fit.
    """
    heads = list(_heads_of_config(cfg) if model is None else _heads(model))
    for phase in phases:
        loader, key = cfg.get(f'{phase}_dataloader'), f'{phase}_dataloader'
        for dataset_key, dataset in iter_datasets(loader, key) if isinstance(loader, dict) else ():
            found = _classes_of(dataset, dataset_key, scope_of(cfg))
            if found is None or dataset.get('return_classes'):  # open vocabulary
                continue
            for name, outputs, detects in heads:
                if outputs < len(found) or (outputs > len(found) and detects):
                    raise UserError(_message(name, outputs, dataset_key, found))


def _message(name: str, outputs: int, key: str, found: tuple[str, ...]) -> str:
    few = f'{len(found)} classes ({", ".join(found[:4])}{", ..." if len(found) > 4 else ""})'
    if name == 'head':
        return (
            f'model.head.num_classes is {outputs}, but {key} has {few}: set it to {len(found)}, or '
            'take the others out of the folders or the ann_file'
        )
    return (
        f'model.{name}.num_classes is {outputs}, but {key}.metainfo has {few}: set it to '
        f'{len(found)}, or correct metainfo.classes'
    )


def _heads(model: nn.Module) -> Iterator[tuple[str, int, bool]]:
    """(Name, number of classes, whether it detects) of the heads that count a dataset's classes."""
    for name, head in model.named_modules():
        yield from _of_head(
            name,
            type(head),
            getattr(head, 'num_classes', None),
            getattr(head, 'out_channels', None),
        )


def _heads_of_config(cfg: Config) -> Iterator[tuple[str, int, bool]]:
    """The same, of what the config says."""
    for name, part, scope in dicts_in(cfg.get('model'), scope=scope_of(cfg)):
        kind = class_of(part, MODELS, scope) if 'num_classes' in part else None
        if kind is not None:
            yield from _of_head(name, kind, part['num_classes'], part.get('out_channels'))


def _of_head(name: str, kind: type, outputs: Any, channels: Any) -> Iterator[tuple[str, int, bool]]:
    segments = name.endswith('decode_head') or '.decode_head' in name
    if (
        _HEADS.search(name)
        and isinstance(outputs, int)
        and not any('RPN' in base.__name__ for base in kind.__mro__)  # it finds one kind of object
        and not (channels == 1 and segments)  # two classes by one output
    ):
        yield name, outputs, not segments and name != 'head'


def _classes_of(config: dict, key: str, scope: str) -> tuple[str, ...] | None:
    """The classes of a dataset of mm's own kinds; None for another, or without classes.

    Raises:
        UserError: it cannot be built.
    """
    kind = class_of(config, DATASETS, scope)
    if is_remote(config):
        return None
    if loads_as(kind, CLASSIFICATION):
        return labels_of(build_lazily(kind, key, config))
    if not (loads_as(kind, COCO) or loads_as(kind, SEGMENTATION)):
        return None
    classes = build_lazily(kind, key, config).metainfo.get('classes')
    return tuple(classes) if classes else None
