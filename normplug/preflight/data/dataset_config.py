"""What a dataset's config says: its type, its pipeline, where its files are."""

from __future__ import annotations

import copy
import inspect
import os
from typing import Any

import numpy as np
from mmengine.registry import DATASETS

from normplug.errors import UserError

from ..config_types import class_of, dicts_in, name_of

__all__ = [
    'CLASSIFICATION',
    'COCO',
    'RAWFRAMES',
    'SEGMENTATION',
    'VIDEOS',
    'build_lazily',
    'chosen_by_indices',
    'downloads',
    'image_loader',
    'is_remote',
    'loads_as',
    'spread',
    'transforms',
]

COCO = ('mmdet.datasets.coco', 'CocoDataset')
CLASSIFICATION = ('mmpretrain.datasets.custom', 'CustomDataset')
SEGMENTATION = ('mmseg.datasets.basesegdataset', 'BaseSegDataset')
VIDEOS = ('mmaction.datasets.video_dataset', 'VideoDataset')
RAWFRAMES = ('mmaction.datasets.rawframe_dataset', 'RawframeDataset')
# What such a class must not have changed for its files to be read as its base reads them.
_LOADING = ('load_data_list', 'parse_data_info', 'COCOAPI', '_find_samples', 'is_valid_file')


def downloads(config: dict, scope: str) -> bool:
    """Whether the dataset fetches its files itself, as mmpretrain's CIFAR10 and MNIST do."""
    kind = class_of(config, DATASETS, scope)
    bases = kind.__mro__ if kind else ()
    can = any('download' in inspect.signature(base.__init__).parameters for base in bases)
    return can and config.get('download', True)


def loads_as(kind: Any, base: tuple[str, str]) -> bool:
    """Whether ``kind`` reads its files by the code of the class (module, name) ``base``."""
    if not inspect.isclass(kind):
        return False
    parameters = inspect.signature(kind).parameters.values()
    lazy = any(p.name == 'lazy_init' or p.kind is p.VAR_KEYWORD for p in parameters)
    return lazy and any(
        all(getattr(kind, name, None) is getattr(parent, name, None) for name in _LOADING)
        for parent in kind.__mro__
        if (parent.__module__, parent.__qualname__) == base
    )


def build_lazily(kind: Any, key: str, config: dict) -> Any:
    """Build a dataset that has not read its files and has no pipeline.

    Raises:
        UserError: an argument is wrong.
    """
    classes = (config.get('metainfo') or {}).get('classes')
    if isinstance(classes, str) and not os.path.isfile(classes):
        raise UserError(
            f'{key}.metainfo.classes is the string {classes!r}, and no file of names; of one class '
            f"it is a tuple with a comma: classes=('{classes}',)"
        )
    arguments = copy.deepcopy(dict(config))
    for name in ('type', '_scope_'):
        arguments.pop(name, None)
    try:
        return kind(**{**arguments, 'lazy_init': True, 'pipeline': []})
    except (TypeError, ValueError, AssertionError) as error:
        cause = str(error) or 'a file or folder that its class asks for is not there'
        raise UserError(f'{key} cannot be built: {cause}') from error


def chosen_by_indices(items: list, dataset: Any) -> list:
    """Those of a dataset's samples that its ``indices`` choose."""
    indices = dataset._indices
    if isinstance(indices, int):
        return items[:indices] if indices >= 0 else items[indices:]
    return items if indices is None else [items[i] for i in indices]


def spread(number: int, chosen: int | None) -> list[int]:
    """``chosen`` indices below ``number``, spread evenly; None for all."""
    if chosen is None or number <= chosen:
        return list(range(number))
    return np.linspace(0, number - 1, chosen).astype(int).tolist()


def is_remote(config: dict) -> bool:
    """Whether a dataset, transform or metric reads files that are not on this machine's disks."""
    paths = [config.get('data_root'), config.get('ann_file')]
    prefix = config.get('data_prefix')
    paths += prefix.values() if isinstance(prefix, dict) else [prefix]
    backend = (config.get('backend_args') or {}).get('backend', 'local')
    return backend != 'local' or any('://' in path for path in paths if isinstance(path, str))


def image_loader(config: dict) -> dict | None:
    """The transform that loads images, if it is mmcv's and must load each from this disk."""
    for transform in transforms(config, 'LoadImageFromFile'):
        odd = transform.get('ignore_empty') or transform.get('file_client_args')
        return None if odd or is_remote(transform) else transform
    return None


def transforms(config: dict, *names: str) -> list[dict]:
    """The transforms of these type names in a dataset's pipeline, those inside of others too."""
    return [
        part
        for _, part, _ in dicts_in(config.get('pipeline'))
        if name_of(part.get('type')) in names
    ]
