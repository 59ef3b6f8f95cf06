"""What a hook looks up in the runner."""

from collections.abc import Iterable

from mmengine.hooks import EMAHook, Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn

__all__ = ['averaged_models', 'hook_of', 'loss_scale']


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


def loss_scale(wrapper: OptimWrapper, one: Tensor) -> Tensor | None:
    """Return by what AMP multiplies the loss now, (), without waiting for the device.

    Args:
        wrapper: of an optimizer.
        one: 1, (), on its device.

    Returns:
        None without a loss scale, and for several optimizers, which have scales of their own.
    """
    scaler = getattr(wrapper, 'loss_scaler', None)
    return None if scaler is None else scaler.scale(one)
