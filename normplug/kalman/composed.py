"""Elementwise functions of one tensor, which a model composes of functions of torch.

The tags of torch's operators, and not a list of names, tell which of them are elementwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

__all__ = ['Composed', 'Operand', 'compose', 'elementwise_only']

# Their slopes, (C,), belong to axis 1.
_PRELU = {F.prelu, torch.prelu, Tensor.prelu}
# Elementwise, and without a tag.
_UNTAGGED = {'hardswish', 'leaky_relu', 'log_sigmoid_forward'}


class Operand:
    """A tensor argument: a function of the followed tensor, or a constant (read at each call)."""

    def __init__(self, value: Callable[[Tensor], Tensor] | Tensor) -> None:
        self._value = value

    def of(self, x: Tensor) -> Tensor:
        """Return its value for the followed tensor x."""
        if not isinstance(self._value, Tensor):
            return self._value(x)
        return self._value.to(x.dtype) if self._value.is_floating_point() else self._value

    def has_tensors(self) -> bool:
        """Return whether it contains a constant."""
        value = self._value
        return value.has_tensors() if isinstance(value, Composed) else isinstance(value, Tensor)

    def __eq__(self, other: object) -> bool:
        """Return whether it is the same function; for constants, the same tensor."""
        return isinstance(other, Operand) and (
            self._value is other._value
            if isinstance(self._value, Tensor) or isinstance(other._value, Tensor)
            else self._value == other._value
        )

    def __hash__(self) -> int:
        """Fits ``==``."""
        return hash(self._value)


class Composed:
    """``func`` of its arguments, as a function of the one tensor that they are computed from."""

    def __init__(self, func: Callable, leaves: list[Any], spec: TreeSpec) -> None:
        self._func, self._leaves, self._spec = func, leaves, spec

    def __call__(self, x: Tensor) -> Tensor:
        """Return the value, of the shape of x (channels on axis 1); x does not change."""
        values = [leaf.of(x) if isinstance(leaf, Operand) else leaf for leaf in self._leaves]
        args, kwargs = tree_unflatten(values, self._spec)
        return self._func(*args, **kwargs)

    def has_tensors(self) -> bool:
        """Return whether it contains a parameter or a buffer."""
        return any(isinstance(leaf, Operand) and leaf.has_tensors() for leaf in self._leaves)

    # Layers with the same activation share compiled code.
    def __eq__(self, other: object) -> bool:
        """Return whether it is the same function."""
        return isinstance(other, Composed) and (
            (self._func, self._spec, self._leaves) == (other._func, other._spec, other._leaves)
        )

    def __hash__(self) -> int:
        """Fits ``==``."""
        return hash((self._func, *self._leaves))


def compose(
    func: Callable,
    args: tuple,
    kwargs: Mapping[str, Any],
    function_of: Callable[[Tensor], Callable[[Tensor], Tensor] | None],
    is_constant: Callable[[Tensor], bool],
) -> Composed | None:
    """Return ``func(*args, **kwargs)`` as a function; None if an argument is other data.

    Args:
        func: a function that may be elementwise, called with tensors of one shape.
        args: its arguments.
        kwargs: its keyword arguments.
        function_of: a tensor → the function that it is of the followed tensor, or None.
        is_constant: whether another tensor is a parameter or a buffer.
    """
    leaves, spec = tree_flatten((args, dict(kwargs)))
    shapes, found = set(), []
    for leaf in leaves:
        function = function_of(leaf) if isinstance(leaf, Tensor) else None
        if function is not None:
            shapes.add(leaf.shape)
        found.append(function)
    if len(shapes) != 1 or kwargs.get('out') is not None:
        return None
    shape = shapes.pop()
    for i, leaf in enumerate(leaves):
        if not isinstance(leaf, Tensor):
            continue
        if found[i] is not None:
            leaves[i] = Operand(found[i])
        elif is_constant(leaf) and (func in _PRELU or _is_of_channels(leaf, shape)):
            leaves[i] = Operand(leaf)
        else:
            return None
    return Composed(func, leaves, spec)


def _is_of_channels(constant: Tensor, shape: torch.Size) -> bool:
    """Return whether ``constant`` broadcasts to ``shape`` as one number, or one per channel."""
    if constant.numel() == 1:
        return True
    axis = constant.dim() - len(shape) + 1  # of the channels, in the constant
    return len(shape) > 2 and axis in (0, 1) and constant.numel() == constant.shape[axis]


@contextmanager
def elementwise_only(func: Callable) -> Iterator[Callable[[], bool]]:
    """Watch the operators in ``func``; yields a function that tells if all were elementwise."""
    seen = _Operators()
    with seen:
        yield lambda: func in _PRELU or (bool(seen.kinds) and all(seen.kinds))


class _Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.kinds: list[bool] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.kinds.append(_is_elementwise(func))
        return func(*args, **(kwargs or {}))


@cache
def _is_elementwise(operator: torch._ops.OpOverload) -> bool:
    namespace, name = operator._schema.name.split('::')
    if namespace != 'aten' or torch.Tag.nondeterministic_seeded in operator.tags:
        return False
    name = name.removesuffix('_')  # not all forms that work in place have the tag
    same = getattr(torch.ops.aten, name, operator.overloadpacket)
    overloads = [operator, *(getattr(same, key) for key in same.overloads())]
    return name in _UNTAGGED or any(torch.Tag.pointwise in one.tags for one in overloads)
