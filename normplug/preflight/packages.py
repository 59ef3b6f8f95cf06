"""Check that the packages are installed that the config's types need.

Many classes of mm ask for an optional package late: a visualizer's backend at the first write, a
transform at the first image, a metric after the first epoch. So this module reads their
source for the places where they would raise, as far as a method comes there in any case:
``if package is None: raise ...`` and ``try: import package except ImportError: raise ...``.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import textwrap
from typing import Any

from mmengine.config import Config

from normplug.errors import UserError

from .config_types import REGISTRIES, dicts_in, scope_of

__all__ = ['check_packages', 'is_about_a_package', 'missing_package', 'package_advice']

# What a run calls in any case, of a visualizer's backend, a transform, a dataset or a metric.
_METHODS = ('__init__', '_init_env', 'transform', '__call__', 'load_data_list', 'compute_metrics')
_ABSENT = re.compile(r'not installed|pip install|please install', re.IGNORECASE)


def check_packages(cfg: Config, phases: tuple[str, ...]) -> None:
    """Check the types of the model, of the data and metrics of ``phases``, of hooks and visualizer.

    Raises:
        UserError: a package is missing; it names the config key.
    """
    keys = ['model', 'optim_wrapper', 'default_hooks', 'custom_hooks', 'visualizer']
    keys += [f'{phase}_{part}' for phase in phases for part in ('dataloader', 'evaluator')]
    told: dict[Any, str] = {}
    parts = {key: cfg.get(key) for key in keys}
    for key, part, scope in dicts_in(parts, scope=scope_of(cfg)):
        kind = _class_of(part.get('type'), scope)
        if kind is None:
            continue
        if kind not in told:
            told[kind] = missing_package(kind)
        if told[kind]:
            raise UserError(package_advice(f'{key}.type', kind.__name__, told[kind]))


def _class_of(name: Any, scope: str | None) -> type | None:
    if isinstance(name, str):
        found = (registry.children.get(scope, registry).get(name) for registry in REGISTRIES)
        name = next((kind for kind in found if kind is not None), None)
    return name if inspect.isclass(name) else None


def package_advice(key: str, name: str, message: str) -> str:
    """Return the text of an error about a package that is not installed.

    Args:
        key: config key of what needs it.
        name: the type that needs it; '' if unknown.
        message: what was, or would be, raised.
    """
    text = f'{key}: {name + " " if name else ""}needs a package that is not installed: {message}'
    named = re.search(r"(\w+)['\"`]? is not installed|No module named '(\w+)", message)
    if named and 'install ' not in message.replace('is not installed', ''):
        text += f'; pip install {named[1] or named[2]}'
    return text


def is_about_a_package(error: Exception) -> bool:
    """Whether ``error`` says that a package is not installed."""
    if isinstance(error, ImportError):
        return True
    return isinstance(error, (RuntimeError, AssertionError)) and bool(_ABSENT.search(str(error)))


def missing_package(kind: type) -> str:
    """Return what a class will raise for want of a package, '' if it has all."""
    for name in _METHODS:
        method = inspect.unwrap(getattr(kind, name, None) or object)
        if not inspect.isfunction(method) or method.__module__.split('.')[0] in ('torch', 'abc'):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
        except (OSError, SyntaxError, TypeError):
            continue  # its source is not there
        message = _first_refusal(tree.body[0].body, method.__globals__)
        if message:
            return message
    return ''


def _first_refusal(body: list[ast.stmt], known: dict) -> str:
    """What statements raise for want of a package; up to where they may return."""
    for statement in body:
        message = ''
        if isinstance(statement, ast.If):
            holds = _value(statement.test, known)
            chosen = {True: statement.body, False: statement.orelse}.get(holds, [])
            message = _raised(chosen) or _first_refusal(chosen, known)
        elif isinstance(statement, ast.Assert) and _value(statement.test, known) is False:
            message = _text_about_a_package(statement)
        elif isinstance(statement, ast.Try) and _fails(statement, known):
            handlers = [h for h in statement.handlers if 'ImportError' in ast.dump(h)]
            message = _raised(handlers[0].body) if handlers else ''
        if message:
            return message
        if any(isinstance(node, ast.Return) for node in ast.walk(statement)):
            return ''
    return ''


def _value(test: ast.expr, known: dict) -> bool | None:
    """Whether a condition holds; None unless that depends on names of the module alone."""
    names = {node.id for node in ast.walk(test) if isinstance(node, ast.Name)}
    calls = any(isinstance(node, ast.Call) for node in ast.walk(test))
    if calls or not names <= known.keys() | vars(builtins).keys():
        return None
    try:
        return bool(eval(compile(ast.Expression(test), '<test>', 'eval'), dict(known)))
    except Exception:  # it is the class's own business
        return None


def _fails(statement: ast.Try, known: dict) -> bool:
    """Whether an import of a ``try`` does."""
    for node in statement.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)) and not getattr(node, 'level', 0):
            module = ast.Module([node], [])
            try:
                exec(compile(module, '<import>', 'exec'), {})
            except ImportError:
                return True
            except Exception:  # it is there, and broken
                return False
    return False


def _raised(body: list[ast.stmt]) -> str:
    """The text of the error that ``body`` raises; '' if it is not about a package."""
    errors = [statement for statement in body if isinstance(statement, ast.Raise)]
    return _text_about_a_package(errors[0]) if errors else ''


def _text_about_a_package(statement: ast.stmt) -> str:
    nodes = ast.walk(statement)
    texts = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    text = ' '.join(' '.join(texts).split())
    return text if _ABSENT.search(text) else ''
