"""Which code runs the steps: plain torch, or what Inductor compiles of the same functions."""

import os
import warnings
from types import FunctionType
from typing import Any

from torch import Tensor

from normplug.ops import compiled
from normplug.ops.memory import is_plain

__all__ = ['BACKENDS', 'get_backend', 'run', 'set_backend']

BACKENDS = ('auto', 'eager', 'compiled')
_VARIABLE = 'NORMPLUG_BACKEND'
_without_compiler: set[str] = set()  # device types
_warned: set[str] = set()


def set_backend(name: str) -> None:
    """Choose what runs the normalizers from now on, in this process.

    Args:
        name: ``'compiled'``: code that Inductor makes of the formulas (C++ on a CPU, Triton on a
            GPU), which takes some seconds, cold half a minute, on first use of each kind of layer;
            ``'eager'``: plain torch; ``'auto'``, the default: compiled, and eager, with a warning,
            where nothing can be compiled. The environment variable NORMPLUG_BACKEND sets it for
            a whole process.

    Raises:
        ValueError: there is no such backend.
    """
    global _chosen
    _chosen = _checked(name, 'set_backend')
    _without_compiler.clear()
    _warned.clear()


def get_backend() -> str:
    """The chosen backend: one of ``BACKENDS``."""
    return _chosen


def run(step: FunctionType, *args: Any) -> Any:
    """Call ``step``, whose first argument is a full-size tensor, by the chosen backend."""
    if _chosen == 'eager' or not _can_compile(args[0]):
        return step(*args)
    try:
        return compiled.call(step, args)
    except compiled.CompilationError as error:
        if _chosen == 'compiled':
            raise
        result = step(*args)  # which raises too where it was no fault of the compiler
        device = args[0].device.type
        if not compiled.count(device):  # nothing can be: do not try every kind of layer
            _without_compiler.add(device)
        _warn_once(str(error))
        return result


def _warn_once(reason: str) -> None:
    if reason not in _warned:
        _warned.add(reason)
        warnings.warn(
            f'normalizers run uncompiled, and slower: {reason} ({_VARIABLE}=compiled raises the '
            f'whole error; {_VARIABLE}=eager says that it is wanted)',
            stacklevel=3,
        )


def _can_compile(x_n: Tensor) -> bool:
    """Whether x is what a compiled step takes: values on a device with a compiler."""
    return (
        is_plain(x_n)
        and x_n.device.type in ('cpu', 'cuda')
        and x_n.device.type not in _without_compiler
        and x_n.numel() > 0
    )


def _checked(name: str, source: str) -> str:
    if name not in BACKENDS:
        raise ValueError(
            f'{source}: the backend must be one of {", ".join(BACKENDS)}, got {name!r}'
        )
    return name


_chosen = _checked(os.environ.get(_VARIABLE, 'auto'), f'environment variable {_VARIABLE}')
