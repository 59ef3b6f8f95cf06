"""Clip the gradient of the ratios alone."""

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from normplug.errors import UnsuitableModelError
from normplug.norms import BaseNorm

__all__ = ['RatioGradClipHook']


@HOOKS.register_module()
class RatioGradClipHook(Hook):
    """Clip the 2-norm of the gradient over all logits of SN, SSN and SW together.

    The released recipe of SSN has it with ``max_norm=1``. ``optim_wrapper.clip_grad``, which covers
    all parameters of the model, is applied before. With accumulated gradients the sum is clipped.
    In an ``OptimWrapperDict`` of mmengine, one optimizer must train all the logits.

    Args:
        max_norm: maximum norm of the gradient.

    Raises:
        ValueError: ``max_norm`` is not positive, or the model has no logits that train.
        UnsuitableModelError: no optimizer trains the logits, or several do.
    """

    def __init__(self, max_norm: float = 1.0) -> None:
        if not max_norm > 0:
            raise ValueError(f'RatioGradClipHook: max_norm must be positive, got {max_norm!r}')
        self.max_norm = max_norm

    def before_train(self, runner: Runner) -> None:
        """Make the optimizer clip right before its step, after all-reduce and unscaling (AMP)."""
        logits = [
            parameter
            for layer in runner.model.modules()
            if isinstance(layer, BaseNorm)
            for name, parameter in layer.named_parameters(recurse=False)
            if name in layer.own_names() and parameter.requires_grad
        ]
        if not logits:
            raise UnsuitableModelError(
                'RatioGradClipHook: the model has no ratios to train; remove the hook'
            )

        wrapper = runner.optim_wrapper
        if isinstance(wrapper, OptimWrapperDict):
            wrapper = _wrapper_of(logits, wrapper)

        def clip(optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
            norm = get_total_norm([w.grad for w in logits if w.grad is not None])
            # A fused optimizer under AMP gets scaled gradients, and unscales them in its step.
            scale = getattr(optimizer, 'grad_scale', None)
            clip_grads_with_norm_(logits, self.max_norm, norm if scale is None else norm / scale)

        self._handle = wrapper.optimizer.register_step_pre_hook(clip)

    def after_train(self, runner: Runner) -> None:
        """Restore the optimizer."""
        self._handle.remove()


def _wrapper_of(logits: list[Tensor], wrappers: OptimWrapperDict) -> OptimWrapper:
    """Return the wrapper whose optimizer trains the logits; one step must have all gradients."""
    wanted = {id(parameter) for parameter in logits}
    found = {}
    for key, wrapper in wrappers.items():
        groups = wrapper.optimizer.param_groups
        trained = wanted & {id(parameter) for group in groups for parameter in group['params']}
        if trained:
            found[key] = len(trained)
    if len(found) != 1:
        shares = ', '.join(f'optim_wrapper.{key} {number}' for key, number in found.items())
        raise UnsuitableModelError(
            f'RatioGradClipHook clips all {len(logits)} logits of SN, SSN and SW at the step of '
            f'one optimizer, but {shares or "no optimizer of optim_wrapper trains any"}: give all '
            'norm layers to one, or remove the hook'
        )
    return wrappers[next(iter(found))]
