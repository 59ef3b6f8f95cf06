"""γ and β once for each instance, so that backward has their gradients by instance."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ['expand_per_instance']


def expand_per_instance(
    weight: Tensor,
    bias: Tensor,
    instances: int,
    dtype: torch.dtype,
    watch: Callable[[Tensor, Tensor], Any],
) -> tuple[Tensor, Tensor]:
    """Return γ and β as (N, C) each, for a rule in place of (C,).

    Their gradients are then those of the instances, which the derivative of the rule computes
    before it sums them: nothing of x's size is read again.

    Args:
        weight, bias: (C,) each.
        instances: N.
        dtype: of the moments, in which the sum over the instances is taken.
        watch: called in each backward pass with the gradients of γ and β, (N, C) each.
    """
    return _ExpandPerInstance.apply(weight, bias, instances, dtype, watch)


class _ExpandPerInstance(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, bias, instances, dtype, watch):
        ctx.watch, ctx.dtypes = watch, (weight.dtype, bias.dtype)
        return tuple(t.to(dtype).repeat(instances, 1) for t in (weight, bias))

    @staticmethod
    def backward(ctx, to_weight_nc, to_bias_nc):
        ctx.watch(to_weight_nc.detach(), to_bias_nc.detach())
        grads = zip((to_weight_nc, to_bias_nc), ctx.dtypes, strict=True)
        return *(grad.sum(0).to(dtype) for grad, dtype in grads), None, None, None
