"""Forward hooks of layers: what they are given, and those that copies do not have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

__all__ = ['HookOfOriginal', 'input_of']


def input_of(args: tuple[Tensor, ...], kwargs: Mapping[str, Tensor]) -> Tensor:
    """Return the input of a layer's call, the first argument, by position or by name.

    Args:
        args, kwargs: of the call, as a hook with ``with_kwargs=True`` gets them.
    """
    return args[0] if args else next(iter(kwargs.values()))


class HookOfOriginal:
    """A forward hook, or pre-hook, that does nothing in copies and pickles of its module.

    torch copies a module's hooks with it: what watches a training would see the copy too, and a
    local function stops ``torch.save`` of the module.

    Args:
        hook: called with what torch calls it with; None to do nothing.
    """

    def __init__(self, hook: Callable[..., Any] | None) -> None:
        self._hook = hook

    def __call__(self, *args: Any) -> Any:
        """Call the hook."""
        return None if self._hook is None else self._hook(*args)

    def __deepcopy__(self, memo: dict) -> HookOfOriginal:
        """Return what does nothing."""
        return HookOfOriginal(None)

    def __reduce__(self) -> tuple:
        """Save what does nothing."""
        return HookOfOriginal, (None,)
