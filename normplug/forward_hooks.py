"""What forward hooks of a layer are given."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

__all__ = ['input_of']


def input_of(args: tuple[Tensor, ...], kwargs: Mapping[str, Tensor]) -> Tensor:
    """Return the input of a layer's call, the first argument, by position or by name.

    Args:
        args, kwargs: of the call, as a hook with ``with_kwargs=True`` gets them.
    """
    return args[0] if args else next(iter(kwargs.values()))
