"""A plain function of small tensors as one step of a backend, and its derivative as another."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from normplug.ops.backend import run
from normplug.ops.memory import is_transformed

__all__ = ['stepped']

Function = Callable[..., tuple[Tensor, ...]]


def stepped(function: Function, tensors: Sequence[Tensor], *constants: Any) -> tuple[Tensor, ...]:
    """``function(*tensors, *constants)``; on a GPU, a few launches instead of dozens.

    The derivative runs the function again, so that ``tensors`` are all that is kept. Differentiable
    any number of times, if the function is.

    Args:
        function: of a module, or a ``functools.partial`` of one; gives a tuple of tensors.
        tensors: all of one device; the first has elements.
        constants: what :func:`normplug.ops.compiled.call` takes: integers greater than 1 may vary
            without another compilation.
    """
    if is_transformed():
        return function(*tensors, *constants)
    return _Stepped.apply(function, constants, *tensors)


class _Stepped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function, constants, *tensors):
        ctx.save_for_backward(*tensors)
        ctx.function, ctx.constants = function, constants
        ctx.set_materialize_grads(False)
        return tuple(run(_values, tensors[0], tensors[1:], function, constants))

    @staticmethod
    def backward(ctx, *cotangents):
        first, *rest = ctx.saved_tensors
        args = rest, ctx.function, ctx.constants, cotangents, ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():  # create_graph=True
            # Aliases: another input may be made of one, and a gradient is of this use alone.
            first, *rest = (t.view_as(t) for t in (first, *rest))
            return None, None, *_gradients(first, rest, *args[1:], create_graph=True)
        return None, None, *run(_gradients, first, *args)


# Steps for a backend.
def _values(
    first: Tensor, rest: Sequence[Tensor], function: Function, constants: Sequence[Any]
) -> tuple[Tensor, ...]:
    return tuple(function(first, *rest, *constants))


def _gradients(
    first: Tensor,
    rest: Sequence[Tensor],
    function: Function,
    constants: Sequence[Any],
    cotangents: Sequence[Tensor | None],
    needed: Sequence[bool],
    create_graph: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradient of each tensor where it is ``needed``, else None."""
    tensors = first, *rest
    if not create_graph:
        tensors = [t.detach().requires_grad_(n) for t, n in zip(tensors, needed, strict=True)]
    with torch.enable_grad():
        values = function(*tensors, *constants)
        given = [(v, c) for v, c in zip(values, cotangents, strict=True) if c is not None]
        outputs, own = zip(*given, strict=True)
        wanted = [t for t, need in zip(tensors, needed, strict=True) if need]
        grads = iter(
            torch.autograd.grad(
                outputs, wanted, own, create_graph=create_graph, materialize_grads=True
            )
        )
    return tuple(next(grads) if need else None for need in needed)
