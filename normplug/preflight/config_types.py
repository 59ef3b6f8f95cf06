"""What a config's ``type`` stands for, and in which registries mmengine looks for it.

A type is a name (``'SN'``), one with its scope (``'mmdet.FCOS'``), the path of an object
(``'torch.optim.SGD'``, as mmengine dumps classes), a class or a function.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import mmengine.registry
from mmengine.config import Config
from mmengine.config.lazy import LazyAttr, LazyObject
from mmengine.registry import MODELS, Registry

__all__ = [
    'PACKAGES',
    'REGISTRIES',
    'built_by',
    'class_of',
    'dicts_in',
    'name_of',
    'name_operators',
    'package_of',
    'scope_of',
    'written',
]

PACKAGES = ('mmdet', 'mmseg', 'mmpretrain', 'mmaction')
# All root registries of mmengine.
REGISTRIES = [value for value in vars(mmengine.registry).values() if isinstance(value, Registry)]
# Whose type mmcv and mmdet look for in mmcv.ops, by the bare name alone where it is a string.
_OPERATORS = ('nms', 'roi_layer')


def scope_of(cfg: Config) -> str | None:
    """Return the registry scope in which mmengine's runner looks up the types of ``cfg``.

    None where the config says ``default_scope = None``: the registry that is asked then looks in
    itself, or in the default scope that others have set in this process.
    """
    return cfg.get('default_scope', 'mmengine')


def built_by(config: Any, registry: Registry, scope: str | None) -> Any:
    """Return the class or function that ``config['type']`` stands for; None if it is not known.

    Args:
        config: a part of a config; one that is no dict, or has no type, is built by None.
        registry: the root registry for such parts.
        scope: see :func:`scope_of`; ``_scope_`` in ``config`` goes before it.
    """
    kind = config.get('type') if isinstance(config, dict) else None
    if isinstance(kind, (LazyObject, LazyAttr)):
        kind = kind.build()
    if isinstance(kind, str):
        with registry.switch_scope_and_registry(config.get('_scope_', scope)) as found:
            kind = found.get(kind)
    return kind if callable(kind) else None


def class_of(config: Any, registry: Registry, scope: str | None) -> type | None:
    """Return :func:`built_by`, and None for a function too."""
    kind = built_by(config, registry, scope)
    return kind if inspect.isclass(kind) else None


def name_of(kind: Any) -> str:
    """Return the bare name of a type, without scope and module."""
    if not isinstance(kind, (LazyAttr, LazyObject)):  # they have any attribute
        kind = getattr(kind, '__name__', kind)
    return str(kind).rpartition('.')[2]


def dicts_in(
    node: Any, key: str = '', scope: str | None = None
) -> Iterator[tuple[str, dict, str | None]]:
    """Yield (config key, dict, its scope) of all dicts in a part of a config, and of the part.

    Args:
        node: any part of a config.
        key: where it stands.
        scope: see :func:`scope_of`; that of a dict with ``_scope_``, and of those inside, is this.
    """
    if isinstance(node, dict):
        scope = node.get('_scope_', scope)
        yield key, node, scope
        items = dict.items(node)  # which imports no class
    elif isinstance(node, (list, tuple)):
        items = enumerate(node)
    else:
        return
    for name, value in items:
        yield from dicts_in(value, f'{key}.{name}' if key else str(name), scope)


def package_of(cfg: Config) -> str | None:
    """Return the package, one of ``PACKAGES``, of whose kind the model is; else the scope.

    The model's class, or one that it inherits from, tells it: a config of classes has no scope.
    """
    model = _innermost(cfg.get('model'))
    model = model if isinstance(model, dict) else {'type': type(model)}  # a built one
    scope = model.get('_scope_', scope_of(cfg))
    kind = dict.get(model, 'type')
    if scope in PACKAGES and isinstance(kind, str) and '.' not in kind:
        return scope  # without importing its models
    try:
        if isinstance(kind, str):
            kind = MODELS.children.get(scope, MODELS).get(kind)
        else:
            kind = built_by(model, MODELS, scope)
    except ImportError:  # which building the model explains
        kind = None
    for base in getattr(kind, '__mro__', ()):
        package = base.__module__.partition('.')[0]
        if package in PACKAGES:
            return package
    return scope


def _innermost(model: Any) -> Any:
    """The config of the model itself where normplug or test-time augmentation wraps it."""
    while isinstance(model, dict):
        part = dict(dict.items(model))  # which imports no class
        if isinstance(part.get('module'), dict):
            model = part['module']
        elif isinstance(part.get('deployed'), dict):
            model = part | {'type': part['deployed'].get('type'), 'deployed': None}
        elif part.get('model_type'):
            model = part | {'type': part['model_type'], 'model_type': None}
        else:
            break
    return model


def name_operators(node: Any, key: str = '') -> None:
    """Replace the paths of mmcv's operators by their names, in place: mmcv finds them by those.

    mmengine dumps ``nms`` as ``'mmcv.ops.nms'``, and mmcv cannot read that back.

    Args:
        node: any part of a config.
        key: the last key of the place where it stands.
    """
    if isinstance(node, dict):
        kind = dict.get(node, 'type')
        if key in _OPERATORS and isinstance(kind, str) and kind.startswith('mmcv.ops.'):
            node['type'] = name_of(kind)
        for name, value in dict.items(node):
            name_operators(value, str(name))
    elif isinstance(node, (list, tuple)):
        for item in node:
            name_operators(item, key)


def written(node: Any) -> Any:
    """Return a part of a config with each class, function and lazy object by its path.

    As mmengine's dump writes lazy objects; classes it cannot write.
    """
    if isinstance(node, dict):
        return {name: written(value) for name, value in dict.items(node)}
    if isinstance(node, (list, tuple)):
        return type(node)(written(item) for item in node)
    if isinstance(node, (LazyObject, LazyAttr)):
        return f'{node.module}.{node}'
    if inspect.isclass(node) or inspect.isroutine(node):
        return f'{node.__module__}.{node.__qualname__}'
    return node
