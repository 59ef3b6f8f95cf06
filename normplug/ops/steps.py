"""The steps of a normalizer between its collectives, each a plain function of tensors.

Forward is :func:`moments_step` and :func:`output_step`, backward :func:`sums_step` and
:func:`input_step`; between the two of each, statistics may be reduced over ranks. Where there is
nothing to reduce, :func:`forward_step` and :func:`backward_step` do both in one go. A backend
compiles each into one graph, so all here must be traceable by Dynamo.

Arguments may be nested; results are flat tuples of tensors and None.

Moments and rule are float64: they cost nothing at (N, C), and in float32 the difference of two
means, such as the instance's and the layer's, would keep few digits where |mean|/std is large.
The passes over x are float32 (float64 for float64), centred at the mean rounded to that.
"""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from normplug.ops import blocked, reference
from normplug.running import Tracked, Tracking, moved, store
from normplug.stats import Affine, Moments, pool

__all__ = [
    'Plan',
    'Rule',
    'Sums',
    'apply_rule',
    'backward_step',
    'forward_step',
    'input_step',
    'moments_step',
    'output_step',
    'pixels_of',
    'split',
    'sums_step',
]

# (instance moments (N, C), batch moments (C,) or None, *parameters) → scale and offset (N, C).
# Plain differentiable torch; the same arguments must give the same result.
Rule = Callable[..., Affine]


class Plan(NamedTuple):
    """What to compute, apart from the tensors: see :func:`normplug.ops.normalize`."""

    rule: Rule
    batch_from: int | None
    correction: int
    tracking: Tracking | None


class Sums(NamedTuple):
    """What backward knows once it has read x and dy.

    Attributes:
        dy_nc: Σ dy, (N, C), in the rule's precision.
        scale_nc: the scale, (N, C).
        to_mean_nc, to_var_nc: gradients of the instance moments through the rule, (N, C).
        to_batch_mean, to_batch_var: of the batch moments, (C',); None without any.
    """

    dy_nc: Tensor
    scale_nc: Tensor
    to_mean_nc: Tensor
    to_var_nc: Tensor
    to_batch_mean: Tensor | None
    to_batch_var: Tensor | None


def pixels_of(x_n: Tensor) -> int:
    """H·W, the number of values per instance and channel."""
    pixels = 1
    for size in x_n.shape[2:]:
        pixels *= size
    return pixels


def instance_moments(x_n: Tensor, correction: int) -> Moments:
    """Mean and variance of every instance and channel, (N, C) each; N may be 0."""
    if x_n.numel() == 0:  # no instance, or none with a value: nothing to reduce
        empty = x_n.new_zeros(x_n.shape[:2], dtype=torch.float64)
        return Moments(empty, empty.clone())
    instance = _passes(x_n).moments(x_n)
    if not correction:
        return instance
    pixels = pixels_of(x_n)
    return Moments(instance.mean, instance.var * (pixels / max(pixels - correction, 1)))


def batch_moments(instance: Moments, start: int) -> Moments:
    """Moments over the instances of the channels from ``start`` on, (C − start,) each."""
    of_batch = Moments(instance.mean[:, start:], instance.var[:, start:])
    if of_batch.mean.shape[0] == 0:  # a mean of nothing is NaN, which a reducer could not weigh
        return Moments(*(t.new_zeros(t.shape[1]) for t in of_batch))
    return pool(of_batch, 0)


def apply_rule(rule: Rule, batch_given: bool, tensors: Sequence[Tensor]) -> Affine:
    """The rule on a flat list: instance mean and variance, the batch's if given, parameters.

    Parameters may be stored in half precision; the rule sees them as precise as the moments.
    """
    mean_nc, var_nc, *rest = tensors
    batch = Moments(rest[0], rest[1]) if batch_given else None
    params = rest[2:] if batch_given else rest
    return rule(Moments(mean_nc, var_nc), batch, *[p.to(mean_nc.dtype) for p in params])


def moments_step(x_n: Tensor, plan: Plan) -> tuple[Tensor | None, ...]:
    """Mean and variance of every instance, and of the batch, or None, where the plan has none."""
    instance = instance_moments(x_n, plan.correction)
    if plan.batch_from is None:
        return *instance, None, None
    return *instance, *batch_moments(instance, plan.batch_from)


def output_step(
    x_n: Tensor,
    plan: Plan,
    instance: Moments,
    batch: Moments | None,
    params: Sequence[Tensor],
    tracked: Tracked | None,
    count: int | Tensor,
) -> tuple[Tensor | None, ...]:
    """y of x, its moments and the rule's parameters; running statistics that wait to be stored.

    They are stored here, which a compiled step does in passing. But Dynamo, tracing a whole model,
    takes no writes inside an autograd Function: there, the last three are their new values.
    """
    scale_nc, offset_nc = apply_rule(
        plan.rule, batch is not None, (*instance, *(batch or ()), *params)
    )
    centre_nc, shift_nc = _centre(x_n, instance.mean)
    small = (scale_nc, offset_nc + shift_nc * scale_nc)
    y_n = _passes(x_n).affine(x_n, centre_nc, *(t.to(centre_nc.dtype) for t in small))
    if tracked is None:
        return y_n, None, None, None
    values = moved(tracked, plan.tracking, batch, count)
    if torch.compiler.is_compiling():
        return y_n, *values
    store(tracked, values)
    return y_n, None, None, None


def forward_step(
    x_n: Tensor,
    plan: Plan,
    given: Moments | None,
    params: Sequence[Tensor],
    tracked: Tracked | None,
) -> tuple[Tensor | None, ...]:
    """As :func:`output_step`; moments of the instances, and of the batch as used, or None."""
    *instance, batch_mean, batch_var = moments_step(x_n, plan)
    instance = Moments(*instance)
    if given is not None:
        # Copies: the buffers may move on between this forward and its backward.
        batch_mean, batch_var = (t.to(instance.mean.dtype, copy=True) for t in given)
    batch = None if batch_mean is None else Moments(batch_mean, batch_var)
    count = x_n.shape[0] * pixels_of(x_n)
    outputs = output_step(x_n, plan, instance, batch, params, tracked, count)
    return *outputs, *instance, batch_mean, batch_var


def sums_step(
    dy_n: Tensor,
    x_n: Tensor,
    plan: Plan,
    instance: Moments,
    batch: Moments | None,
    params: Sequence[Tensor],
) -> tuple[Tensor | None, ...]:
    """Read x and dy for two sums per (n, c), and pull them back through the rule.

    The rule is run again here, and differentiated: a graph kept from forward would break
    ``retain_graph`` and gradcheck.

    Returns:
        :class:`Sums`, and the gradients of the rule's parameters.
    """
    centre_nc, shift_nc = _centre(x_n, instance.mean)
    sums = _passes(x_n, dy_n).backward_reduce(dy_n, x_n, centre_nc)
    dy_nc, dy_centred_nc = (t.to(instance.mean.dtype) for t in sums)
    dy_centred_nc = dy_centred_nc + shift_nc * dy_nc
    scale_nc, grads = _pull_back(
        plan.rule,
        batch is not None,
        (*instance, *(batch or ()), *params),
        Affine(dy_centred_nc, dy_nc),
    )
    if batch is None:
        grads = (*grads[:2], None, None, *grads[2:])
    return dy_nc, scale_nc, *grads


def split(outputs: Sequence[Tensor | None]) -> tuple[Sums, tuple[Tensor, ...]]:
    """The two parts of what :func:`sums_step` returns."""
    fields = len(Sums._fields)
    return Sums(*outputs[:fields]), tuple(outputs[fields:])


def input_step(
    dy_n: Tensor,
    x_n: Tensor,
    plan: Plan,
    instance: Moments,
    batch: Moments | None,
    sums: Sums,
    total: Tensor | None,
) -> tuple[Tensor]:
    """dx, once ``sums`` has the gradients of the batch of all ranks; ``total`` is their count."""
    pixels = pixels_of(x_n)
    centre_nc, shift_nc = _centre(x_n, instance.mean)
    # y = (x − mean) · scale + offset depends on the mean directly too.
    grad_mean_nc = sums.to_mean_nc - sums.scale_nc * sums.dy_nc
    grad_var_nc = sums.to_var_nc
    start = plan.batch_from
    if start is not None:
        share = pixels / (x_n.shape[0] * pixels if total is None else total.clamp(min=1))
        spread_nc = instance.mean[:, start:] - batch.mean
        to_mean_nc = share * (sums.to_batch_mean + 2 * spread_nc * sums.to_batch_var)
        to_var_nc = (share * sums.to_batch_var).expand_as(spread_nc)
        if start > 0:  # the channels before it take no part in the batch moments
            to_mean_nc, to_var_nc = (F.pad(t, (start, 0)) for t in (to_mean_nc, to_var_nc))
        grad_mean_nc = grad_mean_nc + to_mean_nc
        grad_var_nc = grad_var_nc + to_var_nc
    slope_nc = grad_var_nc * (2 / max(pixels - plan.correction, 1))
    level_nc = grad_mean_nc / max(pixels, 1) + shift_nc * slope_nc
    small = (t.to(centre_nc.dtype) for t in (sums.scale_nc, slope_nc, level_nc))
    return (_passes(x_n, dy_n).backward_input(dy_n, x_n, centre_nc, *small),)


def backward_step(
    dy_n: Tensor,
    x_n: Tensor,
    plan: Plan,
    instance: Moments,
    batch: Moments | None,
    params: Sequence[Tensor],
    needs_dx: bool,
) -> tuple[Tensor | None, ...]:
    """dx, if it is needed, else None, and the gradients of the rule's parameters."""
    sums, to_params = split(sums_step(dy_n, x_n, plan, instance, batch, params))
    if not needs_dx:
        return None, *to_params
    return *input_step(dy_n, x_n, plan, instance, batch, sums, None), *to_params


def _passes(*tensors: Tensor) -> ModuleType:
    """What runs the passes over the full tensors: blocked where they all can be cut alike."""
    if blocked.fits(tensors[0]) and all(t.stride() == tensors[0].stride() for t in tensors):
        return blocked
    return reference


def _centre(x_n: Tensor, mean_nc: Tensor) -> tuple[Tensor, Tensor]:
    """What the passes subtract from x, the mean as float32 has it, and by how much it is off."""
    centre_nc = mean_nc.to(reference.working_dtype(x_n))
    return centre_nc, centre_nc - mean_nc


def _pull_back(
    rule: Rule, batch_given: bool, tensors: Sequence[Tensor], cotangents: Affine
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The rule's scale, and the gradient of each tensor (zero where the rule does not use it)."""
    if torch.compiler.is_compiling():
        affine, vjp = torch.func.vjp(lambda *flat: apply_rule(rule, batch_given, flat), *tensors)
        return affine.scale, vjp(cotangents)
    # The same derivative by plain autograd: two thirds of the time, but Dynamo cannot trace it.
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    with torch.enable_grad():
        affine = apply_rule(rule, batch_given, leaves)
        grads = torch.autograd.grad(affine, leaves, cotangents, materialize_grads=True)
    return affine.scale.detach(), grads
