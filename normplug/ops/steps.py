"""The steps of a normalizer between its collectives, each a plain function of tensors.

Forward is :func:`moments_step` and :func:`output_step`, backward :func:`sums_step` and
:func:`input_step`; between the two of each, statistics may be reduced over ranks. Where there is
nothing to reduce, :func:`forward_step` and :func:`backward_step` do both in one go. A backend
compiles each into one graph, so all here must be traceable by Dynamo.

Arguments may be nested; results are flat tuples of tensors and None.

Moments and rule are float64 where the device has it: they cost nothing at (N, C), and in float32
the difference of two means, such as the instance's and the layer's, would keep few digits where
|mean|/std is large.
The passes over x are float32 (float64 for float64), centred at the mean rounded to that.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from normplug.ops import blocked, reference
from normplug.ops.plain import is_plain, on_gpu
from normplug.ops.plan import Plan, apply_rule, per_instance, pull_back, tracked_step
from normplug.running import Tracked
from normplug.stats import Moments, pool

__all__ = [
    'Sums',
    'backward_step',
    'forward_step',
    'input_step',
    'moments_step',
    'output_step',
    'pixels_of',
    'split',
    'sums_step',
]


class Sums(NamedTuple):
    """What backward knows once it has read x and dy.

    Attributes:
        dy_nc: Σ dy, (N, C), in the rule's precision.
        scale_nc: the scale, (N, C).
        to_mean_nc, to_var_nc: gradients of the instance moments through the rule, (N, C).
        to_batch_mean, to_batch_var: of the batch moments, in their shape; None without any.
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


def instance_moments(x_n: Tensor, correction: int, dtype: torch.dtype = torch.float64) -> Moments:
    """Mean and variance of every instance and channel, (N, C) each; N may be 0."""
    if x_n.numel() == 0:  # no instance, or none with a value: nothing to reduce
        empty = x_n.flatten(2).sum(2, dtype=dtype)  # a sum: autograd's graph is that of all ranks
        return Moments(empty, empty.clone())
    instance = _passes(x_n).moments(x_n, dtype)
    if not correction:
        return instance
    pixels = pixels_of(x_n)
    return Moments(instance.mean, instance.var * (pixels / max(pixels - correction, 1)))


def batch_moments(instance: Moments, start: int, group: int | None = None) -> Moments:
    """Moments over the instances of the channels from ``start`` on, (C − start,) each.

    With ``group``, over each ``group`` instances in turn, (N / group, C − start).
    """
    of_batch = Moments(instance.mean[:, start:], instance.var[:, start:])
    if group is not None:
        return pool(Moments(*(t.unflatten(0, (-1, group)) for t in of_batch)), 1)
    if of_batch.mean.shape[0] == 0:  # a mean of nothing is NaN, which a reducer could not weigh
        return Moments(*(t.sum(0) for t in of_batch))
    return pool(of_batch, 0)


def moments_step(x_n: Tensor, plan: Plan, tracked: Tracked | None) -> tuple[Tensor | None, ...]:
    """Mean and variance of every instance, and of the batch, or None, where the plan has none."""
    instance = instance_moments(x_n, plan.correction, plan.dtype)
    if plan.batch_from is None:
        return *instance, None, None
    start = _start(plan, x_n, None if tracked is None else tracked.mean)
    return *instance, *batch_moments(instance, start, plan.group)


def output_step(
    x_n: Tensor,
    plan: Plan,
    instance: Moments,
    batch: Moments | None,
    params: Sequence[Tensor],
    tracked: Tracked | None,
    count: int | Tensor,
    out_n: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """y of x, its moments and the rule's parameters, and five more, or None.

    ``out_n``, of x's shape and layout, is where y is written; the result then has None for y.

    The first three are running statistics that wait to be stored. They are stored here, which a
    compiled step does in passing. But Dynamo, tracing a whole model, takes no writes inside an
    autograd Function: there, they are their new values. The last two are the filtered moments.
    """
    (scale_nc, offset_nc), filtered = apply_rule(
        plan, batch is not None, (*instance, *(batch or ()), *params)
    )
    passes = _passes(x_n)
    centre_nc, shift_nc = _centre(passes, x_n, instance.mean)
    small = (passes.taken(t, x_n) for t in (scale_nc, offset_nc + shift_nc * scale_nc))
    y_n = passes.affine(x_n, centre_nc, *small, out_n)
    if out_n is not None:
        y_n = None
    if plan.group is not None:
        count = plan.group * pixels_of(x_n)
    values = tracked_step(tracked, plan, filtered or batch, count)
    return y_n, *values, *(filtered or (None, None))


def forward_step(
    x_n: Tensor,
    plan: Plan,
    given: Moments | None,
    params: Sequence[Tensor],
    tracked: Tracked | None,
    out_n: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """As :func:`output_step`; moments of the instances, and of the batch as used, or None."""
    *instance, batch_mean, batch_var = moments_step(x_n, plan, tracked)
    instance = Moments(*instance)
    if given is not None:
        # Copies: the buffers may move on between this forward and its backward.
        batch_mean, batch_var = (t.to(instance.mean.dtype, copy=True) for t in given)
    batch = None if batch_mean is None else Moments(batch_mean, batch_var)
    count = x_n.shape[0] * pixels_of(x_n)
    outputs = output_step(x_n, plan, instance, batch, params, tracked, count, out_n)
    return *outputs, *instance, batch_mean, batch_var


def sums_step(
    dy_n: Tensor,
    x_n: Tensor,
    plan: Plan,
    instance: Moments,
    batch: Moments | None,
    params: Sequence[Tensor],
    needed: Sequence[bool],
    to_filtered: Moments | None,
) -> tuple[Tensor | None, ...]:
    """Read x and dy for two sums per (n, c), and pull them back through the rule.

    The rule is run again here, and differentiated: a graph kept from forward would break
    ``retain_graph`` and gradcheck. ``to_filtered`` is the gradient of the filtered moments.

    Returns:
        :class:`Sums`, and the gradients of the rule's parameters, None where none is ``needed``.
    """
    passes = _passes(x_n, dy_n)
    centre_nc, shift_nc = _centre(passes, x_n, instance.mean)
    sums = passes.backward_reduce(dy_n, x_n, centre_nc)
    dy_nc, dy_centred_nc = (t.to(instance.mean.dtype) for t in sums)
    dy_centred_nc = dy_centred_nc + shift_nc * dy_nc
    moments = *instance, *(batch or ())
    scale_nc, grads = pull_back(
        plan,
        batch is not None,
        (*moments, *params),
        (*(True for _ in moments), *needed),
        (dy_centred_nc, dy_nc, *(to_filtered or ())),
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
    out_n: Tensor | None = None,
) -> tuple[Tensor | None]:
    """dx, once ``sums`` has the gradients of the batch of all ranks; ``total`` is their count.

    ``out_n``, of x's shape and layout, is where dx is written; the result is then None.
    """
    pixels = pixels_of(x_n)
    passes = _passes(x_n, dy_n)
    centre_nc, shift_nc = _centre(passes, x_n, instance.mean)
    # y = (x − mean) · scale + offset depends on the mean directly too.
    grad_mean_nc = sums.to_mean_nc - sums.scale_nc * sums.dy_nc
    grad_var_nc = sums.to_var_nc
    if plan.batch_from is not None:
        start = _start(plan, x_n, batch.mean)
        together = x_n.shape[0] if plan.group is None else plan.group
        share = pixels / (together * pixels if total is None else total.clamp(min=1))
        batch_mean, to_batch_mean, to_batch_var = (
            per_instance(t, plan.group) for t in (batch.mean, sums.to_batch_mean, sums.to_batch_var)
        )
        spread_nc = instance.mean[:, start:] - batch_mean
        to_mean_nc = share * (to_batch_mean + 2 * spread_nc * to_batch_var)
        to_var_nc = (share * to_batch_var).expand_as(spread_nc)
        if plan.batch_from > 0:  # the channels before it take no part in the batch moments
            to_mean_nc, to_var_nc = (F.pad(t, (start, 0)) for t in (to_mean_nc, to_var_nc))
        grad_mean_nc = grad_mean_nc + to_mean_nc
        grad_var_nc = grad_var_nc + to_var_nc
    slope_nc = grad_var_nc * (2 / max(pixels - plan.correction, 1))
    level_nc = grad_mean_nc / max(pixels, 1) + shift_nc * slope_nc
    small = (passes.taken(t, x_n) for t in (sums.scale_nc, slope_nc, level_nc))
    dx_n = passes.backward_input(dy_n, x_n, centre_nc, *small, out_n)
    return (dx_n if out_n is None else None,)


def backward_step(
    dy_n: Tensor,
    x_n: Tensor,
    plan: Plan,
    instance: Moments,
    batch: Moments | None,
    params: Sequence[Tensor],
    needed: Sequence[bool],
    to_filtered: Moments | None,
    needs_dx: bool,
    out_n: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """dx and the gradients of the rule's parameters, None where they are not needed.

    ``out_n`` as in :func:`input_step`.
    """
    sums, to_params = split(
        sums_step(dy_n, x_n, plan, instance, batch, params, needed, to_filtered)
    )
    if not needs_dx:
        return None, *to_params
    return *input_step(dy_n, x_n, plan, instance, batch, sums, None, out_n), *to_params


def _start(plan: Plan, x_n: Tensor, of_batch: Tensor | None) -> int:
    """The plan's ``batch_from``, out of the number of channels that ``of_batch`` has.

    Otherwise the number of x's channels would be a sum of two symbols to Inductor, and loops over
    such sums are not fused.
    """
    if not plan.batch_from or of_batch is None:
        return plan.batch_from
    return x_n.shape[1] - of_batch.shape[-1]


def _passes(*tensors: Tensor) -> ModuleType:
    """What runs the passes over the full tensors: blocked where they all can be cut alike."""
    if blocked.fits(tensors[0]) and all(t.stride() == tensors[0].stride() for t in tensors):
        return blocked
    if on_gpu(tensors[0]) and not is_plain(tensors[0]):
        from normplug.ops import kernels

        if kernels.fits(tensors[0]):
            return kernels
    return reference


def _centre(passes: ModuleType, x_n: Tensor, mean_nc: Tensor) -> tuple[Tensor, Tensor]:
    """What the passes subtract from x, the mean as float32 has it, and by how much it is off."""
    centre_nc = passes.taken(mean_nc, x_n)
    return centre_nc, centre_nc.to(reference.working_dtype(x_n)) - mean_nc
