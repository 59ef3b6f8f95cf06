"""Which code runs the steps: plain torch, or what Inductor compiles of the same functions."""

import os
import threading
import warnings
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

__all__ = ['BACKENDS', 'get_backend', 'run', 'set_backend']

BACKENDS = ('auto', 'eager', 'compiled')
_VARIABLE = 'NORMPLUG_BACKEND'
_without_compiler: set[str] = set()  # device types


def set_backend(name: str) -> None:
    """Choose what runs the normalizers from now on, in this process.

    Args:
        name: ``'eager'``, the default: plain torch; ``'compiled'``: torch.compile (Inductor: C++
            on the CPU, Triton on the GPU), which takes some seconds, cold half a minute, on first
            use of each kind of layer; ``'auto'``: compiled, and eager, with a warning, where
            nothing can be compiled. The environment variable NORMPLUG_BACKEND sets it for a
            whole process.

    Raises:
        ValueError: there is no such backend.
    """
    global _chosen
    _chosen = _checked(name, 'set_backend')
    _without_compiler.clear()


def get_backend() -> str:
    """The chosen backend: one of ``BACKENDS``."""
    return _chosen


def run(step: FunctionType, *args: Any) -> Any:
    """Call ``step``, whose first argument is a full-size tensor, by the chosen backend."""
    x_n = args[0]
    if _chosen == 'eager' or torch.compiler.is_compiling() or not _can_compile(x_n):
        return step(*args)
    try:
        with _per_thread().settings:
            return _compiled(step)(*args)
    except torch._dynamo.exc.BackendCompilerFailed as error:
        if _chosen == 'compiled':
            raise
        _without_compiler.add(x_n.device.type)
        warnings.warn(
            f'normalizers run uncompiled, and slower: {str(error).splitlines()[0]} '
            f'({_VARIABLE}=compiled raises the whole error; {_VARIABLE}=eager says that it is '
            'wanted)',
            stacklevel=2,
        )
        return step(*args)


class _PerThread(threading.local):
    """Dynamo's settings while it may compile a step; backward has a thread of its own on a GPU."""

    def __init__(self) -> None:
        self.settings = torch._dynamo.config.patch(
            specialize_float=True,  # eps and momentum: an input costs more than it saves
            optimize_ddp=False,  # it would split a step as if it were the model
            # Norm types, arguments, dtypes and layouts, each once; not one per size.
            recompile_limit=256,
            accumulated_recompile_limit=2048,
        )


@cache
def _per_thread() -> _PerThread:
    return _PerThread()  # not on import, which would import Dynamo: seconds


def _can_compile(x_n: Tensor) -> bool:
    """Whether x is what a compiled step takes: values on a device with a compiler, no subclass."""
    return (
        type(x_n) in (Tensor, torch.nn.Parameter)
        and x_n.device.type in ('cpu', 'cuda')
        and x_n.device.type not in _without_compiler
        and x_n.numel() > 0
    )


@cache
def _compiled(step: FunctionType) -> Callable:
    return torch.compile(step, dynamic=True, fullgraph=True)


def _checked(name: str, source: str) -> str:
    if name not in BACKENDS:
        raise ValueError(
            f'{source}: the backend must be one of {", ".join(BACKENDS)}, got {name!r}'
        )
    return name


_chosen = _checked(os.environ.get(_VARIABLE, 'eager'), f'environment variable {_VARIABLE}')
