"""moments → rule → affine as one autograd Function.

Forward reads x for its moments, lets the rule turn the (N, C) moments into a scale and an offset,
and writes y. Backward reads x and dy for two sums per (n, c), differentiates the rule on (N, C)
tensors, and writes dx. Between the two it keeps x and (N, C) tensors only: eight transfers of x's
size for a training step, as many as native batch norm.

Moments and rule are float64: they cost nothing at (N, C), and in float32 the difference of two
means, such as the instance's and the layer's, would keep few digits where |mean|/std is large.
The passes over x are float32 (float64 for float64), centred at the mean rounded to that.

The rule is run again in backward, and differentiated there: keeping its graph on ``ctx`` instead
would break ``retain_graph`` and gradcheck.
"""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from normplug.ops import reference
from normplug.stats import Affine, Moments, pool

__all__ = ['Reducer', 'Rule', 'normalize', 'normalize_reference']

# The module whose four passes run.
backend = reference

# (instance moments (N, C), batch moments (C,) or None, *parameters) → scale and offset (N, C).
# Plain differentiable torch; the same arguments must give the same result.
Rule = Callable[..., Affine]


class Reducer(Protocol):
    """Reduces batch statistics, and their gradients, over ranks: one collective each."""

    def forward(self, local: Moments, count: int) -> tuple[Moments, Tensor]:
        """Merge (C,) moments of ``count`` values per channel; also gives the total count, ()."""

    def backward(self, grad: Moments) -> Moments:
        """Sum the (C,) gradients of the merged moments."""


def _pixels(x_n: Tensor) -> int:
    pixels = 1
    for size in x_n.shape[2:]:
        pixels *= size
    return pixels


def _instance_moments(x_n: Tensor, correction: int, ops: ModuleType) -> Moments:
    if x_n.numel() == 0:  # no instance, or none with a value: nothing to reduce
        empty = x_n.new_zeros(x_n.shape[:2], dtype=torch.float64)
        return Moments(empty, empty.clone())
    instance = ops.moments(x_n)
    if not correction:
        return instance
    pixels = _pixels(x_n)
    return Moments(instance.mean, instance.var * (pixels / max(pixels - correction, 1)))


def _batch_moments(instance: Moments, start: int) -> Moments:
    of_batch = Moments(instance.mean[:, start:], instance.var[:, start:])
    if of_batch.mean.shape[0] == 0:  # a mean of nothing is NaN, which a reducer could not weigh
        return Moments(*(t.new_zeros(t.shape[1]) for t in of_batch))
    return pool(of_batch, 0)


def _centre(x_n: Tensor, mean_nc: Tensor) -> tuple[Tensor, Tensor]:
    """What the passes subtract from x, the mean as float32 has it, and by how much it is off."""
    centre_nc = mean_nc.to(reference.working_dtype(x_n))
    return centre_nc, centre_nc - mean_nc


def _apply(rule: Rule, batch_given: bool, tensors: Sequence[Tensor]) -> Affine:
    """The rule on a flat list: instance mean and variance, the batch's if given, parameters.

    Parameters may be stored in half precision; the rule sees them as precise as the moments.
    """
    mean_nc, var_nc, *rest = tensors
    batch = Moments(rest[0], rest[1]) if batch_given else None
    params = rest[2:] if batch_given else rest
    return rule(Moments(mean_nc, var_nc), batch, *[p.to(mean_nc.dtype) for p in params])


def _pull_back(
    rule: Rule, batch_given: bool, tensors: Sequence[Tensor], cotangents: Affine
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The rule's scale, and the gradient of each tensor (zero where the rule does not use it)."""
    if torch.compiler.is_compiling():
        affine, vjp = torch.func.vjp(lambda *flat: _apply(rule, batch_given, flat), *tensors)
        return affine.scale, vjp(cotangents)
    # The same derivative by plain autograd: two thirds of the time, but Dynamo cannot trace it.
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    with torch.enable_grad():
        affine = _apply(rule, batch_given, leaves)
        grads = torch.autograd.grad(affine, leaves, cotangents, materialize_grads=True)
    return affine.scale.detach(), grads


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_n, given_mean, given_var, rule, batch_from, reducer, correction, *params):
        instance = _instance_moments(x_n, correction, backend)
        batch, total = None, None
        if given_mean is not None:
            # Copies: the buffers may move on between this forward and its backward.
            batch = Moments(*(t.to(instance.mean, copy=True) for t in (given_mean, given_var)))
        elif batch_from is not None:
            batch = _batch_moments(instance, batch_from)
            if reducer is not None:
                batch, total = reducer.forward(batch, x_n.shape[0] * _pixels(x_n))
        tensors = (*instance, *(batch or ()), *params)
        scale_nc, offset_nc = _apply(rule, batch is not None, tensors)

        batch_mean, batch_var = batch or (None, None)
        ctx.save_for_backward(x_n, *instance, batch_mean, batch_var, total, *params)
        ctx.rule, ctx.reducer, ctx.correction = rule, reducer, correction
        ctx.batch_from = None if given_mean is not None else batch_from
        ctx.mark_non_differentiable(*(t for t in (batch_mean, batch_var, total) if t is not None))
        centre_nc, shift_nc = _centre(x_n, instance.mean)
        small = (scale_nc, offset_nc + shift_nc * scale_nc)
        y_n = backend.affine(x_n, centre_nc, *(t.to(centre_nc.dtype) for t in small))
        return y_n, batch_mean, batch_var, total

    @staticmethod
    @once_differentiable
    def backward(ctx, dy_n, _mean, _var, _total):
        x_n, mean_nc, var_nc, batch_mean, batch_var, total, *params = ctx.saved_tensors
        batch = None if batch_mean is None else Moments(batch_mean, batch_var)
        centre_nc, shift_nc = _centre(x_n, mean_nc)
        sums = backend.backward_reduce(dy_n, x_n, centre_nc)
        sum_dy_nc, sum_dy_centred_nc = (t.to(mean_nc.dtype) for t in sums)
        sum_dy_centred_nc = sum_dy_centred_nc + shift_nc * sum_dy_nc

        tensors = (mean_nc, var_nc, *(batch or ()), *params)
        cotangents = Affine(sum_dy_centred_nc, sum_dy_nc)
        scale_nc, grads = _pull_back(ctx.rule, batch is not None, tensors, cotangents)
        grad_mean_nc, grad_var_nc, *grads = grads
        grad_params = grads if batch is None else grads[2:]
        start = ctx.batch_from
        if start is not None:
            grad_batch = Moments(grads[0], grads[1])
            if ctx.reducer is not None:  # also if x needs no gradient here: another rank's may
                grad_batch = ctx.reducer.backward(grad_batch)
        fixed = (None,) * 6
        if not ctx.needs_input_grad[0]:
            return None, *fixed, *grad_params

        pixels = _pixels(x_n)
        # y = (x − mean) · scale + offset depends on the mean directly too.
        grad_mean_nc = grad_mean_nc - scale_nc * sum_dy_nc
        if start is not None:
            share = pixels / (x_n.shape[0] * pixels if total is None else total.clamp(min=1))
            spread_nc = mean_nc[:, start:] - batch.mean
            to_mean_nc = share * (grad_batch.mean + 2 * spread_nc * grad_batch.var)
            to_var_nc = (share * grad_batch.var).expand_as(spread_nc)
            if start > 0:  # the channels before it take no part in the batch moments
                to_mean_nc, to_var_nc = (F.pad(t, (start, 0)) for t in (to_mean_nc, to_var_nc))
            grad_mean_nc = grad_mean_nc + to_mean_nc
            grad_var_nc = grad_var_nc + to_var_nc
        slope_nc = grad_var_nc * (2 / max(pixels - ctx.correction, 1))
        level_nc = grad_mean_nc / max(pixels, 1) + shift_nc * slope_nc
        small = (t.to(centre_nc.dtype) for t in (scale_nc, slope_nc, level_nc))
        dx_n = backend.backward_input(dy_n, x_n, centre_nc, *small)
        return dx_n, *fixed, *grad_params


def normalize(
    x_n: Tensor,
    rule: Rule,
    params: Sequence[Tensor],
    *,
    given: Moments | None = None,
    batch_from: int | None = None,
    reducer: Reducer | None = None,
    correction: int = 0,
) -> tuple[Tensor, Moments | None, Tensor | None]:
    """Normalize ``x_n`` by the statistics that ``rule`` makes of its moments.

    First-order gradients only: differentiating twice raises ``RuntimeError``.

    Args:
        x_n: input of shape (N, C, *spatial) with 1 to 3 spatial axes, floating point. N may be 0
            unless batch moments are computed without a reducer.
        rule: see :data:`Rule`. Moments and parameters reach it in float64.
        params: the tensors that the rule takes after the moments; each receives a gradient.
        given: batch moments (C',) to use as constants (evaluation), instead of computed ones.
        batch_from: compute differentiable batch moments of the channels from this one on.
        reducer: reduces the computed batch moments over ranks.
        correction: instance variances are divided by H·W − correction (at least by 1).

    Returns:
        y in x's shape, dtype and memory format; the batch moments that the rule saw (not
        differentiable), or None; their count over all ranks, shape (), if there is a reducer.
    """
    given_mean, given_var = given if given is not None else (None, None)
    y_n, mean_c, var_c, total = _Normalize.apply(
        x_n, given_mean, given_var, rule, batch_from, reducer, correction, *params
    )
    return y_n, None if mean_c is None else Moments(mean_c, var_c), total


def normalize_reference(
    x_n: Tensor,
    rule: Rule,
    params: Sequence[Tensor],
    *,
    given: Moments | None = None,
    batch_from: int | None = None,
    correction: int = 0,
) -> Tensor:
    """What :func:`normalize` computes on one rank, differentiated by autograd step by step."""
    instance = _instance_moments(x_n, correction, reference)
    batch = given
    if batch is None and batch_from is not None:
        batch = _batch_moments(instance, batch_from)
    tensors = (*instance, *(batch or ()), *params)
    scale_nc, offset_nc = _apply(rule, batch is not None, tensors)
    return reference.affine(x_n, instance.mean, scale_nc, offset_nc)
