"""Check that every ``type`` of the config exists."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from mmengine.config import Config
from mmengine.config.lazy import LazyAttr, LazyObject
from mmengine.registry import Registry

from normplug.errors import UserError

from .config_types import REGISTRIES, name_of, scope_of, written

__all__ = ['check_types', 'keys_of_type', 'unknown_types_explained']

# What the papers and their released code call ours.
_FULL_NAMES = [
    (re.compile(r'^(switch\w*?norm|sn)\d?d?$', re.IGNORECASE), 'SN'),
    (re.compile(r'^(instance_?batch\w*|ibn\w*)$', re.IGNORECASE), 'IBN'),
    (re.compile(r'^switch\w*?whiten\w*$', re.IGNORECASE), 'SW'),
    (re.compile(r'^sync_?switch\w*?whiten\w*$', re.IGNORECASE), 'SyncSW'),
    (re.compile(r'^iter\w*?norm\w*$', re.IGNORECASE), 'IterNorm'),
    (re.compile(r'^batch_?renorm\w*$', re.IGNORECASE), 'BRN'),
    (re.compile(r'^(batch_?channel\w*|bcnorm\w*)$', re.IGNORECASE), 'BCN'),
    (re.compile(r'^(moving_?average_?batch\w*|mabn\w*)$', re.IGNORECASE), 'MABN'),
    (re.compile(r'^(extended_?batch\w*|ebn\w*)$', re.IGNORECASE), 'EBN'),
    (re.compile(r'^(batch_?instance\w*|binorm\w*)$', re.IGNORECASE), 'BIN'),
    (re.compile(r'^(cross_?iter\w*|cbatch_?norm\w*|cbn\dd)$', re.IGNORECASE), 'CBN'),
    (re.compile(r'^filter_?resp\w*$', re.IGNORECASE), 'FRN'),
    (re.compile(r'^group_?(whiten\w*|itn)$', re.IGNORECASE), 'GW'),
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
        UserError: ``default_scope`` is not installed, or a type is in no registry, or is a class
            that cannot be imported; the message names its config key and similar names.
    """
    scope = scope_of(cfg)
    try:
        import_module(f'{scope or "mmengine"}.registry')
    except ModuleNotFoundError as error:
        if error.name not in (scope, f'{scope}.registry'):
            raise
        raise UserError(
            f"default_scope = '{scope}' is not an installed package; install it, or choose "
            'mmdet, mmseg, mmpretrain or mmaction'
        ) from error
    sections = {name: cfg.get(name) for phase in (*phases, 'all') for name in _SECTIONS[phase]}
    absent = list(_absent({'model': cfg.get('model'), **sections}, ''))
    if absent:
        raise UserError('\n'.join([*absent, f'Correct the imports of {cfg.filename}.']))
    unknown = list(_unknown(sections, scope))
    if unknown:
        raise UserError(_message(unknown, cfg))


def _absent(node: Any, key: str) -> Iterator[str]:
    """Import the classes and functions of a config; yield a line for each that is not there."""
    if isinstance(node, (LazyAttr, LazyObject)):
        try:
            node.build()
        except ImportError as error:
            yield f'{key}: {error}'
    elif isinstance(node, (dict, list, tuple)):
        items = dict.items(node) if isinstance(node, dict) else enumerate(node)
        for name, value in items:
            yield from _absent(value, f'{key}.{name}' if key else str(name))


def keys_of_type(cfg: Config, name: str) -> list[str]:
    """Config keys of the model's dicts whose type has the bare name ``name``."""
    types = _types({'model': cfg.get('model')}, '', scope_of(cfg), True)
    return [key.removesuffix('.type') for key, found, _ in types if name_of(found) == name]


@contextmanager
def unknown_types_explained(cfg: Config) -> Iterator[None]:
    """Turn an error about an unknown type inside the block into a UserError.

    It is a registry's KeyError, or the ImportError of a class of a config.
    """
    try:
        yield
    except ImportError as error:
        if not str(error).startswith('Failed to import ') or cfg.filename is None:
            raise
        raise UserError(f'{cfg.filename}: {error}; correct the import') from error
    except KeyError as error:
        unknown = _named_by(error, cfg)
        if not unknown:
            raise
        raise UserError(_message(unknown, cfg)) from error


def _named_by(error: KeyError, cfg: Config) -> list[tuple[str, str]]:
    """Return (config key, type) of what a registry's ``error`` is about; empty for another one."""
    if 'registry' not in str(error):
        return []
    scope = scope_of(cfg)
    named = re.search(r"([^\s'\"]+) is not in the .+? registry", str(error))
    if named:
        return [
            (key, name)
            for key, name, _ in _types(cfg._to_lazy_dict(), '', scope, True)
            if name == named[1]
        ]
    # mmcv's builders of layers do not say which name they looked for.
    return [
        (key, name)
        for key, name in _unknown({'model': cfg.get('model')}, scope)
        # Below these, types may be names that no registry holds: functions of mmcv.ops.
        if not {'train_cfg', 'test_cfg', 'roi_layer'} & set(key.split('.'))
    ]


def _types(
    node: Any, key: str, scope: str | None, deep: bool
) -> Iterator[tuple[str, Any, str | None]]:
    """Yield (config key, type, scope) of every type: a name or path, or a class that is imported.

    Unless ``deep``, not those in the arguments of transforms: Albu and the like name things of
    other libraries there.
    """
    if isinstance(node, dict):
        scope = node.get('_scope_', scope)
        items = list(dict.items(node))  # which imports no class
    elif isinstance(node, (list, tuple)):
        items = list(enumerate(node))
    else:
        return
    for name, value in items:
        inner = f'{key}.{name}' if key else str(name)
        # Arguments such as resize_type are explained, but may be names of another kind.
        if name in ('type', 'constructor') or (deep and str(name).endswith('_type')):
            value = written(value) if isinstance(value, (LazyAttr, LazyObject)) else value
            if isinstance(value, str) or callable(value):
                yield inner, value, scope
        elif not deep and str(name).endswith('pipeline') and isinstance(value, (list, tuple)):
            for i, transform in enumerate(value):
                if isinstance(transform, dict):
                    own = {k: v for k, v in dict.items(transform) if k in ('type', '_scope_')}
                    yield from _types(own, f'{inner}.{i}', scope, deep)
        else:
            yield from _types(value, inner, scope, deep)


def _unknown(node: Any, scope: str | None) -> Iterator[tuple[str, str]]:
    checked: dict[tuple[str, str | None], bool] = {}
    for key, name, inner_scope in _types(node, '', scope, False):
        if not isinstance(name, str):
            continue
        if (name, inner_scope) not in checked:
            checked[name, inner_scope] = any(
                asked.get(name) is not None
                for registry in REGISTRIES
                for asked in _asked(registry, inner_scope)
            )
        if not checked[name, inner_scope]:
            yield key, name


def _asked(registry: Registry, scope: str | None) -> list[Registry]:
    """The registries in which a type may be looked for, if ``registry`` is the root one."""
    if scope is None:  # whichever the code that builds it asks: one of a package, in its own code
        return [registry, *registry.children.values()]
    return [registry.children.get(scope, registry)]


def _message(unknown: list[tuple[str, str]], cfg: Config) -> str:
    scope = scope_of(cfg)
    names = {
        name
        for registry in REGISTRIES
        for source in (registry, *_asked(registry, scope))
        for name in source.module_dict
    }
    by_lower = {name.lower(): name for name in sorted(names)}
    lines = []
    for key, name in unknown:
        similar = [by_lower[found] for found in difflib.get_close_matches(name.lower(), by_lower)]
        similar = [known for words, known in _FULL_NAMES if words.search(name)] or similar
        hint = f'; did you mean {", ".join(similar)}?' if similar else ''
        elsewhere = [
            child.scope
            for registry in REGISTRIES
            for child in registry.children.values()
            if child.scope != scope and name in child.module_dict
        ]
        if elsewhere:
            hint = (
                f" in the scope {scope!r}: write '{elsewhere[0]}.{name}', or set default_scope = "
                f"'{elsewhere[0]}'"
            )
        lines.append(f"{key}: there is no type '{name}'{hint}")
    if cfg._imported_names:  # mmengine ignores custom_imports in a config of classes
        lines.append('Import the class in the config and give it as the type, without quotes.')
    else:
        lines.append(
            "If it is a normplug type, the config needs custom_imports = dict(imports=['normplug"
            "']); if it is your own, name its module there."
        )
    return '\n'.join(lines)
