"""A bound on the gradient of the ratios alone."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from normplug.norms import BaseNorm

__all__ = ['RatioGradClipHook']


@HOOKS.register_module()
class RatioGradClipHook(Hook):
    """Clip the 2-norm of the gradient over all logits of SN and SSN together.

    Part of the released recipe for SSN, with 1. ``optim_wrapper.clip_grad``, which is over all
    parameters of the model, comes before it. With accumulated gradients the sum is clipped.

    Args:
        max_norm: the norm that is left at most.

    Raises:
        ValueError: ``max_norm`` is not positive, or the model has no logits that train.
    """

    def __init__(self, max_norm: float = 1.0) -> None:
        if not max_norm > 0:
            raise ValueError(f'RatioGradClipHook: max_norm must be positive, got {max_norm!r}')
        self.max_norm = max_norm

    def before_train(self, runner: Runner) -> None:
        """Have the optimizer clip right before its step, when ranks and AMP are done with them."""
        logits = [
            parameter
            for layer in runner.model.modules()
            if isinstance(layer, BaseNorm)
            for name, parameter in layer.named_parameters(recurse=False)
            if name in layer.own_names() and parameter.requires_grad
        ]
        if not logits:
            raise ValueError('RatioGradClipHook: the model has no ratios to train; remove the hook')

        def clip(optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
            norm = get_total_norm([w.grad for w in logits if w.grad is not None])
            # A fused optimizer under AMP gets scaled gradients, and unscales them in its step.
            scale = getattr(optimizer, 'grad_scale', None)
            clip_grads_with_norm_(logits, self.max_norm, norm if scale is None else norm / scale)

        self._handle = runner.optim_wrapper.optimizer.register_step_pre_hook(clip)

    def after_train(self, runner: Runner) -> None:
        """Leave the optimizer as it was."""
        self._handle.remove()
