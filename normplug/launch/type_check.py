"""Does every ``type`` of the config exist?"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry

from .config import scope_of
from .errors import UserError

__all__ = ['check_types', 'keys_of_type', 'unknown_types_explained']

_REGISTRIES = [value for value in vars(mmengine.registry).values() if isinstance(value, Registry)]
# What the papers and their released code call ours.
_FULL_NAMES = [
    (re.compile(r'^(switch\w*?norm|sn)\d?d?$', re.IGNORECASE), 'SN'),
    (re.compile(r'^(instance_?batch\w*|ibn\w*)$', re.IGNORECASE), 'IBN'),
]
_SECTIONS = {
    'train': ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'),
    'val': ('val_dataloader', 'val_cfg', 'val_evaluator'),
    'test': ('test_dataloader', 'test_cfg', 'test_evaluator'),
    'all': ('default_hooks', 'custom_hooks', 'visualizer', 'log_processor'),
}


def check_types(cfg: Config, phases: tuple[str, ...]) -> None:
    """Check the types of all but the model, whose types are checked by building it.

    (A model's config also holds names that no registry knows, such as ``nms``.)

    Raises:
        UserError: ``default_scope`` is not installed, or a type is in no registry; the message
            names its config key and similar names.
    """
    scope = scope_of(cfg)
    try:
        import_module(f'{scope}.registry')
    except ModuleNotFoundError as error:
        if error.name not in (scope, f'{scope}.registry'):
            raise
        raise UserError(
            f"default_scope = '{scope}' names no installed package; install it, or choose "
            'mmdet, mmseg or mmpretrain'
        ) from error
    sections = {name: cfg.get(name) for phase in (*phases, 'all') for name in _SECTIONS[phase]}
    unknown = list(_unknown(sections, scope))
    if unknown:
        raise UserError(_message(unknown, scope))


def keys_of_type(cfg: Config, name: str) -> list[str]:
    """Config keys of the model's dicts of ``type=name``."""
    types = _types({'model': cfg.get('model')}, '', scope_of(cfg), True)
    return [key.removesuffix('.type') for key, found, _ in types if found == name]


@contextmanager
def unknown_types_explained(cfg: Config) -> Iterator[None]:
    """Turn a registry's KeyError about an unknown type inside the block into a UserError."""
    try:
        yield
    except KeyError as error:
        unknown = _named_by(error, cfg)
        if not unknown:
            raise
        raise UserError(_message(unknown, scope_of(cfg))) from error


def _named_by(error: KeyError, cfg: Config) -> list[tuple[str, str]]:
    """Return (config key, type) of what a registry's ``error`` is about; empty for another one."""
    if 'registry' not in str(error):
        return []
    scope = scope_of(cfg)
    named = re.search(r"([^\s'\"]+) is not in the .+? registry", str(error))
    if named:
        return [
            (key, name)
            for key, name, _ in _types(dict(cfg.items()), '', scope, True)
            if name == named[1]
        ]
    # mmcv's builders of layers do not say which name they looked for.
    return [
        (key, name)
        for key, name in _unknown({'model': cfg.get('model')}, scope)
        # Below these, types may be names that no registry holds: functions of mmcv.ops.
        if not {'train_cfg', 'test_cfg', 'roi_layer'} & set(key.split('.'))
    ]


def _types(node: Any, key: str, scope: str, deep: bool) -> Iterator[tuple[str, str, str]]:
    """Yield (config key, type, scope) of every type given as a string.

    Unless ``deep``, not those in the arguments of transforms: Albu and the like name things of
    other libraries there.
    """
    if isinstance(node, dict):
        scope = node.get('_scope_', scope)
        items = list(node.items())
    elif isinstance(node, (list, tuple)):
        items = list(enumerate(node))
    else:
        return
    for name, value in items:
        inner = f'{key}.{name}' if key else str(name)
        if name in ('type', 'constructor'):
            if isinstance(value, str):
                yield inner, value, scope
        elif not deep and str(name).endswith('pipeline') and isinstance(value, (list, tuple)):
            for i, transform in enumerate(value):
                if isinstance(transform, dict) and isinstance(transform.get('type'), str):
                    yield f'{inner}.{i}.type', transform['type'], scope
        else:
            yield from _types(value, inner, scope, deep)


def _unknown(node: Any, scope: str) -> Iterator[tuple[str, str]]:
    checked: dict[tuple[str, str], bool] = {}
    for key, name, inner_scope in _types(node, '', scope, False):
        if (name, inner_scope) not in checked:
            checked[name, inner_scope] = any(
                registry.children.get(inner_scope, registry).get(name) is not None
                for registry in _REGISTRIES
            )
        if not checked[name, inner_scope]:
            yield key, name


def _message(unknown: list[tuple[str, str]], scope: str) -> str:
    names = {
        name
        for registry in _REGISTRIES
        for source in (registry, registry.children.get(scope, registry))
        for name in source.module_dict
    }
    by_lower = {name.lower(): name for name in sorted(names)}
    lines = []
    for key, name in unknown:
        similar = [by_lower[found] for found in difflib.get_close_matches(name.lower(), by_lower)]
        similar = [known for words, known in _FULL_NAMES if words.search(name)] or similar
        hint = f'; did you mean {", ".join(similar)}?'
        lines.append(f"{key}: there is no type '{name}'{hint if similar else ''}")
    lines.append(
        "If it is a normplug type, the config needs custom_imports = dict(imports=['normplug']); "
        'if it is your own, name its module there.'
    )
    return '\n'.join(lines)
