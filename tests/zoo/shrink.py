"""Configs of the installed mm packages, made small, with another normalizer everywhere."""

import inspect
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS

CHANNELS = re.compile(r'(.*_)?(channels?|dims|feats|filters|inplanes)')
LARGEST = {  # counts that only cost time
    'max_per_img': 20,
    'nms_pre': 100,
    'num': 32,  # of a sampler
    'num_dn_queries': 5,
    'num_layers': 2,
    'num_proposals': 20,
    'num_queries': 20,
    'point_num': 32,
}
# Of a class that takes it: statistics move in every stage, and nothing is loaded.
ALWAYS = {'norm_eval': False, 'pretrained': None}
REPLACED = ('BN', 'SyncBN', 'GN', 'MMSyncBN', 'BN2d')


def read_config(scope: str, name: str) -> Config:
    """The package's config `name`, as `_base_ = 'scope::name'` finds it."""
    return Config.fromfile(Path(find_spec(scope).origin).parent / '.mim/configs' / name)


def nodes(value: Any, key: str = '') -> Iterator[tuple[str, dict]]:
    """Every dict in `value`, itself first, and the key that it, or the list it is in, stands at."""
    if isinstance(value, dict):
        yield key, value
        for name in list(value):
            yield from nodes(value[name], name)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from nodes(part, key)


def shrink(model: ConfigDict, factor: int, size: int) -> None:
    """Divide all channels by `factor`, also those that a class has by default; cut counts.

    Images are `size` pixels wide and high, and every box is kept, however low its score and small.
    """
    for at, node in nodes(model):
        for key in node:
            node[key] = _smaller(key, node[key], factor, size)
        init_cfg = node.get('init_cfg')
        if isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained':
            node['init_cfg'] = None
        node.pop('frozen_stages', None)
        known = _defaults(at, node)
        node.update({key: value for key, value in ALWAYS.items() if key in known})
        for key, default in known.items():
            if key not in node and CHANNELS.fullmatch(key) and _divisible(default, factor):
                node[key] = _smaller(key, default, factor, size)


def set_norm(model: ConfigDict, norm_cfg: dict) -> None:
    """`norm_cfg` in place of each that is written, and of a class's default that is a batch norm.

    Layer norms stay: their channels are on the last axis.
    """
    for at, node in nodes(model):
        known = _defaults(at, node)
        for key in {*node, *known}:
            old = node.get(key, known.get(key))
            if key.endswith('norm_cfg') and isinstance(old, dict) and old.get('type') in REPLACED:
                node[key] = dict(norm_cfg)


def _smaller(key: str, value: Any, factor: int, size: int) -> Any:
    if CHANNELS.fullmatch(key):
        return _divided(value, factor)
    if key in LARGEST and type(value) is int:
        return min(value, LARGEST[key])
    if key in ('size', 'img_size', 'crop_size', 'stride') and _is_image_size(value):
        return (size, size)
    if key == 'min_bbox_size':
        return -1
    return 0.0 if key in ('score_thr', 'filter_thr') and isinstance(value, float) else value


def _is_image_size(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2 and min(value) >= 224


def _divisible(value: Any, factor: int) -> bool:
    if isinstance(value, (tuple, list)):
        return bool(value) and all(_divisible(part, factor) for part in value)
    return type(value) is int and value >= 2 * factor and value % factor == 0


def _divided(value: Any, factor: int) -> Any:
    if isinstance(value, dict):
        return value
    if isinstance(value, (tuple, list)):
        return type(value)(_divided(part, factor) for part in value)
    return value // factor if _divisible(value, factor) else value


def _defaults(key: str, node: dict) -> dict[str, Any]:
    """The arguments that the class of `node` takes, and its defaults.

    None of an `upsample_cfg`, whose other arguments come from the layer around it.
    """
    kind = None if key == 'upsample_cfg' else node.get('type')
    with MODELS.switch_scope_and_registry(None) as registry:
        built = registry.get(kind) if isinstance(kind, str) else kind
    if not inspect.isclass(built):
        return {}
    found: dict[str, Any] = {}
    for base in built.__mro__:
        if '__init__' not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        for parameter in parameters:
            found.setdefault(parameter.name, parameter.default)
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found
