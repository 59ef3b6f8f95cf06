"""Find which compiled operators a layer or function of `mmcv.ops` needs, from its code.

`mmcv.ops` calls them as `ext_module.name(...)`, from functions, from autograd Functions, and by
`name = SomeFunction.apply`. So they can be found by the names in the code of a function.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from types import FunctionType, MethodType

from torch.autograd import Function

from normplug.compat.mmcv_ext import TorchvisionExt

__all__ = ['missing_operators']


def missing_operators(used: type | Callable, device: str, training: bool = True) -> set[str]:
    """Return the operators that `used` needs and `mmcv._ext` lacks; none if that is compiled.

    A function that tests whether its input is on a GPU, or whether it is training, uses plain torch
    in the other case: it needs no operator on a CPU, or in evaluation.

    Args:
        used: A class of layers, or a function.
        device: Type of the device it will run on.
        training: Whether it will run in training mode.
    """
    ext = sys.modules.get('mmcv._ext')
    if not isinstance(ext, TorchvisionExt):
        return set()
    asked = set() if device == 'cuda' else {'is_cuda'}
    asked |= set() if training else {'training'}
    found: set[str] = set()
    seen: set[FunctionType] = set()
    todo = list(_functions(used, used))
    while todo:
        function, owner = todo.pop()
        if function in seen:
            continue
        seen.add(function)
        names = set(function.__code__.co_names)
        if names & asked:
            continue
        if 'ext_module' in names:
            found |= names & ext.missing
        for name in names:
            other = function.__globals__.get(name, getattr(owner, name, None))
            todo += [pair for pair in _functions(other, owner) if _is_of_mmcv_ops(pair[0])]
    return found


def _is_of_mmcv_ops(function: FunctionType) -> bool:
    return function.__module__.startswith('mmcv.ops.')


def _functions(value: object, owner: object) -> Iterator[tuple[FunctionType, object]]:
    """Yield the functions that run when `value` is used, each with the class that it belongs to."""
    if isinstance(value, MethodType):  # SomeFunction.apply
        value = value.__self__
    if inspect.isclass(value):
        for step in ('forward', 'backward') if issubclass(value, Function) else ('forward',):
            yield from _functions(getattr(value, step, None), value)
    elif isinstance(value, FunctionType):
        yield inspect.unwrap(value), owner
