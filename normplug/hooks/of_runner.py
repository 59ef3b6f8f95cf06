"""What a hook looks up in the runner."""

from collections.abc import Iterable

from mmengine.hooks import EMAHook, Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn

__all__ = ['averaged_models', 'hook_of', 'loss_scale', 'wrappers_in']


def averaged_models(runner: Runner) -> list[nn.Module]:
    """The averages of the model that ``EMAHook`` keeps, in their wrappers."""
    return [hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)]


def hook_of(hooks: Iterable[Hook], kind: str) -> Hook | None:
    """Return the first of ``hooks`` whose class is or inherits from ``kind``.

    Args:
        hooks: of a runner.
        kind: name of a class, whose package may not be installed.
    """
    found = (h for h in hooks if any(base.__name__ == kind for base in type(h).__mro__))
    return next(found, None)


def wrappers_in(wrapper: OptimWrapper | OptimWrapperDict) -> list[OptimWrapper]:
    """Return the wrappers of the single optimizers in what the runner has."""
    return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]


def loss_scale(wrapper: OptimWrapper, one: Tensor) -> Tensor | None:
    """Return by what AMP multiplies the loss now, (), without waiting for the device.

    Args:
        wrapper: of an optimizer.
        one: 1, (), on its device.

    Returns:
        None without a loss scale.
    """
    scaler = getattr(wrapper, 'loss_scaler', None)
    return None if scaler is None else scaler.scale(one)
