"""What a hook looks up in the runner."""

from collections.abc import Iterable

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

__all__ = ['hook_of', 'unwrapped']


def hook_of(hooks: Iterable[Hook], kind: str) -> Hook | None:
    """Return the first of ``hooks`` whose class is or inherits from ``kind``.

    Args:
        hooks: of a runner.
        kind: name of a class, whose package may not be installed.
    """
    found = (h for h in hooks if any(base.__name__ == kind for base in type(h).__mro__))
    return next(found, None)


def unwrapped(runner: Runner) -> nn.Module:
    """Return the model without its wrapper, so that layer names do not start with ``module.``."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
