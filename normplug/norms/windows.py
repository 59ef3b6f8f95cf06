"""Windows of the last batches, as MABN averages over them forward and backward."""

import torch
from torch import Tensor

__all__ = ['put', 'with_gradient']


def put(window: Tensor, place: Tensor, value: Tensor, is_good: Tensor) -> None:
    """Write ``value``, (C,), into row ``place``, (), of a window (k, C), where ``is_good``, ()."""
    is_it = torch.arange(len(window), device=window.device) == place
    window.copy_(torch.where((is_it & is_good).unsqueeze(1), value.to(window.dtype), window))


def with_gradient(y: Tensor, average: Tensor, gradient: Tensor) -> Tensor:
    """Return y, whose backward pass gives ``average`` a gradient that does not depend on dy.

    Args:
        y: of any shape; it is not copied.
        average: (C,).
        gradient: of ``average``, (C,).
    """
    return _WithGradient.apply(y, average, gradient)


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y, average, gradient):
        ctx.save_for_backward(gradient)
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx, dy):
        (gradient,) = ctx.saved_tensors
        return dy, gradient, None

    @staticmethod
    def jvp(ctx, dy, *unused):
        return dy
