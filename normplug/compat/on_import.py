"""Change a module of an optional package right after it is imported, without importing it."""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Callable
from types import ModuleType

__all__ = ['on_import']

_CHANGES: dict[str, Callable[[ModuleType], None]] = {}


def on_import(name: str, change: Callable[[ModuleType], None]) -> None:
    """Call ``change`` with the module ``name``: now if it is imported, else once it will be.

    Calling it again changes nothing.
    """
    if name in _CHANGES:
        return
    _CHANGES[name] = change
    if name in sys.modules:
        change(sys.modules[name])
    elif _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


class _Finder:
    """Finds the modules of `_CHANGES` by the finders after it."""

    @staticmethod
    def find_spec(name: str, path=None, target=None) -> importlib.machinery.ModuleSpec | None:
        if name not in _CHANGES:
            return None
        finders = (finder for finder in sys.meta_path if finder is not _Finder)
        specs = (finder.find_spec(name, path, target) for finder in finders)
        spec = next(filter(None, specs), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _CHANGES[name](module)

            spec.loader.exec_module = exec_module
        return spec
