"""The steps of a normalizer between its collectives, each a plain function of tensors.

Where nothing is reduced over ranks, they are :func:`forward_step` and :func:`backward_step`. Else
:func:`instance_moments`, :func:`output_step`, :func:`sums_step` and :func:`input_step` are their
parts: see :mod:`normplug.ops.reduced`. A backend compiles each step into one graph, so all here
must be traceable by Dynamo.

Arguments may be nested. A step returns one of :mod:`normplug.ops.results`.

Moments and rule are float64 on a CPU, where they cost nothing at (N, C), and float32 on a GPU. In
float32 the difference of two means, such as the instance's and the layer's, keeps few digits where
|mean|/std is large: as many as in torch's own norms.
The passes over x are float32 (float64 for float64), centred at the mean rounded to that.
"""

from collections.abc import Sequence
from types import ModuleType

import torch.nn.functional as F
from torch import Tensor

from normplug.ops import blocked, passes
from normplug.ops.memory import is_plain, on_gpu
from normplug.ops.passes import pixels_of
from normplug.ops.plan import Plan, apply_rule, per_instance, pull_back, tracked_step
from normplug.ops.results import Backward, Forward, Output, Sums
from normplug.precision import working_dtype
from normplug.running import Tracked
from normplug.stats import Moments, pool

__all__ = [
    'backward_step',
    'batch_moments',
    'forward_step',
    'input_step',
    'instance_moments',
    'output_step',
    'sums_step',
]


def instance_moments(x_n: Tensor, plan: Plan) -> Moments:
    """Mean and variance of every instance and channel, (N, C) each; N may be 0."""
    if x_n.numel() == 0:  # no instance, or none with a value: nothing to reduce
        empty = x_n.flatten(2).sum(
            2, dtype=plan.dtype
        )  # a sum: autograd's graph is that of all ranks
        return Moments(empty, empty.clone())
    instance = _passes(x_n).moments(x_n, plan.dtype)
    if not plan.correction:
        return instance
    pixels = pixels_of(x_n)
    return Moments(instance.mean, instance.var * (pixels / max(pixels - plan.correction, 1)))


def batch_moments(x_n: Tensor, instance: Moments, plan: Plan, running: Tracked | None) -> Moments:
    """Moments over the instances of the channels that have them, (C',) each.

    With groups, over each in turn, (N / group, C').
    """
    start = _start(plan, x_n, None if running is None else running.mean)
    of_batch = Moments(instance.mean[:, start:], instance.var[:, start:])
    if plan.group is not None:
        return pool(Moments(*(t.unflatten(0, (-1, plan.group)) for t in of_batch)), 1)
    if of_batch.mean.shape[0] == 0:  # a mean of nothing is NaN, which a reducer could not weigh
        return Moments(*(t.sum(0) for t in of_batch))
    return pool(of_batch, 0)


def output_step(
    x_n: Tensor,
    plan: Plan,
    instance: Moments,
    batch: Moments | None,
    params: Sequence[Tensor],
    tracked: Tracked | None,
    count: int | Tensor,
    out_n: Tensor | None = None,
) -> Output:
    """Compute y of x, its moments and the parameters; move the running statistics.

    Args:
        x_n, plan, instance, batch, params: as everywhere here.
        tracked: the running statistics that move, if they do.
        count: values per channel in the batch.
        out_n: of x's shape and layout, where to write y.
    """
    (scale_nc, offset_nc), filtered = apply_rule(
        plan, batch is not None, (*instance, *(batch or ()), *params)
    )
    by = _passes(x_n)
    centre_nc, shift_nc = _centre(by, x_n, instance.mean)
    small = (by.taken(t, x_n) for t in (scale_nc, offset_nc + shift_nc * scale_nc))
    y_n = by.affine(x_n, centre_nc, *small, out_n)
    if plan.group is not None:
        count = plan.group * pixels_of(x_n)
    stored = tracked_step(tracked, plan, filtered or batch, count)
    return Output(y_n if out_n is None else None, *(filtered or (None, None)), stored)


def forward_step(
    x_n: Tensor,
    plan: Plan,
    params: Sequence[Tensor],
    running: Tracked | None,
    out_n: Tensor | None = None,
) -> Forward:
    """Compute y of x, and what backward needs.

    Args:
        x_n, plan, params: as everywhere here.
        running: to move if the plan tracks them; to normalize by if it takes no batch moments.
        out_n: as in :func:`output_step`.
    """
    instance = instance_moments(x_n, plan)
    batch = None
    if plan.batch_from is not None:
        batch = batch_moments(x_n, instance, plan, running)
    elif running is not None:
        # Copies: the buffers may move on between this forward and its backward.
        batch = Moments(*(t.to(plan.dtype, copy=True) for t in running[:2]))
    tracked = None if plan.batch_from is None else running
    count = x_n.shape[0] * pixels_of(x_n)
    *output, stored = output_step(x_n, plan, instance, batch, params, tracked, count, out_n)
    return Forward(*output, *instance, *(batch or (None, None)), stored)


def sums_step(
    dy_n: Tensor,
    x_n: Tensor,
    plan: Plan,
    instance: Moments,
    batch: Moments | None,
    params: Sequence[Tensor],
    needed: Sequence[bool],
    to_filtered: Moments | None,
) -> Sums:
    """Read x and dy for two sums per (n, c), and pull them back through the rule.

    The rule is run again here, and differentiated: a graph kept from forward would break
    ``retain_graph`` and gradcheck.

    Args:
        dy_n, x_n, plan, instance, batch, params: as everywhere here.
        needed: whether the gradient of a parameter is.
        to_filtered: the gradient of the filtered moments.
    """
    by = _passes(x_n, dy_n)
    centre_nc, shift_nc = _centre(by, x_n, instance.mean)
    sums = by.backward_reduce(dy_n, x_n, centre_nc)
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
    to_moments, to_params = grads[: len(moments)], grads[len(moments) :]
    to_batch = to_moments[2:] or (None, None)
    return Sums(dy_nc, scale_nc, *to_moments[:2], *to_batch, to_params)


def input_step(
    dy_n: Tensor,
    x_n: Tensor,
    plan: Plan,
    instance: Moments,
    batch: Moments | None,
    sums: Sums,
    total: Tensor | None,
    out_n: Tensor | None = None,
) -> Tensor | None:
    """Compute dx, once ``sums`` has the gradients of the batch of all ranks.

    Args:
        dy_n, x_n, plan, instance, batch: as everywhere here.
        sums: see :class:`normplug.ops.results.Sums`.
        total: values per channel of all ranks, (); None for those of x.
        out_n: of x's shape and layout, where to write dx; the result is then None.
    """
    pixels = pixels_of(x_n)
    by = _passes(x_n, dy_n)
    centre_nc, shift_nc = _centre(by, x_n, instance.mean)
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
    small = (by.taken(t, x_n) for t in (sums.scale_nc, slope_nc, level_nc))
    dx_n = by.backward_input(dy_n, x_n, centre_nc, *small, out_n)
    return dx_n if out_n is None else None


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
) -> Backward:
    """Compute dx, if it is needed, and the gradients of the parameters that are.

    Arguments are those of :func:`sums_step` and :func:`input_step`.
    """
    sums = sums_step(dy_n, x_n, plan, instance, batch, params, needed, to_filtered)
    dx_n = None
    if needs_dx:
        dx_n = input_step(dy_n, x_n, plan, instance, batch, sums, None, out_n)
    return Backward(dx_n, sums.to_params)


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
    return passes


def _centre(by: ModuleType, x_n: Tensor, mean_nc: Tensor) -> tuple[Tensor, Tensor]:
    """What the passes subtract from x, the mean as float32 has it, and by how much it is off."""
    centre_nc = by.taken(mean_nc, x_n)
    return centre_nc, centre_nc.to(working_dtype(x_n)) - mean_nc
