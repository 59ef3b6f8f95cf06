"""moments → rule → affine as one autograd Function.

Forward reads x for its moments, lets the rule turn the (N, C) moments into a scale and an offset,
and writes y. Backward reads x and dy for two sums per (n, c), differentiates the rule on (N, C)
tensors, and writes dx. Between the two it keeps x and (N, C) tensors only: eight transfers of x's
size for a training step, as many as native batch norm.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from normplug.ops import reference
from normplug.ops.backend import run
from normplug.ops.pages import result_like
from normplug.ops.plain import is_transformed
from normplug.ops.plan import Filter, Plan, Rule, apply_rule
from normplug.ops.reduced import (
    local_step,
    merge_step,
    packed_input_step,
    packed_sums_step,
    split_packed,
)
from normplug.ops.steps import (
    backward_step,
    batch_moments,
    forward_step,
    instance_moments,
    moments_step,
    output_step,
    pixels_of,
)
from normplug.precision import small_dtype
from normplug.running import Tracked, Tracking, store
from normplug.stats import Moments

__all__ = ['Filter', 'Reducer', 'Rule', 'normalize', 'normalize_filtered', 'normalize_reference']


class Reducer(Protocol):
    """Reduces batch statistics, and their gradients, over ranks: one collective each."""

    def gather(self, own: Tensor) -> Tensor:
        """What all ranks give, stacked along a new first axis."""

    def sum(self, own: Tensor) -> Tensor:
        """The sum over the ranks; may be ``own``, changed."""

    def differentiable(self, local: Moments, count: int) -> tuple[Moments, Tensor]:
        """Merge (C,) moments of ``count`` values per channel; also gives the total count, ().

        By operators that autograd differentiates any number of times.
        """


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *args):
        # Not spelled out: Dynamo (torch 2.11) takes ctx for one of them where the numbers agree.
        x, plan, given, tracked, reducer, *params = args
        y, total = result_like(x), None
        x_n, out_n = _flattened(x, y)
        if reducer is None:
            y_n, *more, mean_nc, var_nc, batch_mean, batch_var = run(
                forward_step, x_n, plan, given, params, tracked, out_n
            )
        else:
            mean_nc, var_nc, own = run(local_step, x_n, plan, tracked)
            # Of what a filter makes of the moments, the averages are taken behind it.
            merged, left = (tracked, None) if plan.filter is None else (None, tracked)
            ranks = reducer.gather(own)
            batch_mean, batch_var, total, *values = run(merge_step, ranks, plan, merged)
            moments = Moments(mean_nc, var_nc), Moments(batch_mean, batch_var)
            y_n, *more = run(output_step, x_n, plan, *moments, params, left, total, out_n)
            more = [*(values if left is None else more[:3]), *more[3:]]
        values = more[:3]
        ctx.save_for_backward(x, mean_nc, var_nc, batch_mean, batch_var, total, *params)
        ctx.plan, ctx.reducer = plan, reducer
        if values[0] is not None:
            ctx.mark_non_differentiable(*values)
        elif tracked is not None:
            torch.autograd.graph.increment_version(tracked)  # compiled code writes unnoticed
        return _shaped(y_n, x) if y is None else y, *more

    @staticmethod
    def backward(ctx, dy, *others):
        x, mean_nc, var_nc, batch_mean, batch_var, total, *params = ctx.saved_tensors
        needs_dx, _, _, _, _, *needed = ctx.needs_input_grad
        batch = None if batch_mean is None else Moments(batch_mean, batch_var)
        if not torch.compiler.is_compiling() and torch.is_grad_enabled():  # create_graph=True
            cotangents = dy, *(() if ctx.plan.filter is None else others[3:])
            needed = needs_dx, *needed
            grads = _differentiable(x, ctx.plan, batch, ctx.reducer, params, needed, cotangents)
            return grads[0], None, None, None, None, *grads[1:]
        dx = result_like(x) if needs_dx else None
        dy_n, x_n, out_n = _flattened(dy, x, dx)
        instance = Moments(mean_nc, var_nc)
        to_filtered = None if ctx.plan.filter is None else Moments(*others[3:])
        args = ctx.plan, instance, batch
        given = *args, params, needed, to_filtered
        if ctx.reducer is None:
            dx_n, *to_params = run(backward_step, dy_n, x_n, *given, needs_dx, out_n)
        else:
            own, sums, to_params = split_packed(run(packed_sums_step, dy_n, x_n, *given))
            to_batch = ctx.reducer.sum(own)  # also if x needs no gradient here: another rank's may
            more = sums, to_batch, total, out_n
            dx_n = run(packed_input_step, dy_n, x_n, *args, *more)[0] if needs_dx else None
        if needs_dx and dx is None:
            dx = _shaped(dx_n, x)
        return dx, None, None, None, None, *to_params


def normalize(
    x_n: Tensor,
    rule: Rule,
    params: Sequence[Tensor],
    *,
    given: Moments | None = None,
    batch_from: int | None = None,
    reducer: Reducer | None = None,
    correction: int = 0,
    tracked: Tracked | None = None,
    tracking: Tracking | None = None,
    group: int | None = None,
) -> Tensor:
    """Normalize ``x_n`` by the statistics that ``rule`` makes of its moments.

    Differentiable any number of times, backward and forward, and by ``torch.func``. All but a
    first backward runs the plain formula, which keeps more of x's size. As with
    ``nn.BatchNorm2d``, a transform takes no ``tracked`` that is not an argument of its function.

    Args:
        x_n: input of shape (N, C) or (N, C, *spatial), up to 3 spatial axes, floating point. N may
            be 0 unless batch moments are computed without a reducer.
        rule: see :data:`Rule`. Moments and parameters reach it in float64, or in
            float32 on devices without it.
        params: the tensors that the rule takes after the moments; each receives a gradient.
        given: batch moments (C',) to use as constants (evaluation), instead of computed ones.
        batch_from: compute differentiable batch moments of the channels from this one on.
        reducer: reduces the computed batch moments over ranks.
        correction: instance variances are divided by H·W − correction (at least by 1).
        tracked: running statistics to move, in place, towards the batch moments.
        tracking: how ``tracked`` moves.
        group: compute batch moments of each ``group`` instances in turn, not of all; it must
            divide N, and excludes a reducer. The running statistics follow the groups' average.

    Returns:
        y in x's shape, dtype and memory format.
    """
    plan = Plan(rule, None if given is not None else batch_from, correction, tracking, group)
    return _run(x_n, plan, params, given, reducer, tracked)[0]


def normalize_filtered(
    x_n: Tensor,
    rule: Rule,
    params: Sequence[Tensor],
    filter: Filter,
    filter_inputs: Sequence[Tensor],
    *,
    batch_from: int = 0,
    reducer: Reducer | None = None,
    correction: int = 0,
    tracked: Tracked | None = None,
    tracking: Tracking | None = None,
    group: int | None = None,
) -> tuple[Tensor, Moments]:
    """As :func:`normalize`, by batch moments that a filter has changed before the rule sees them.

    Args:
        filter: see :data:`Filter`; like a rule, a plain differentiable function.
        filter_inputs: the tensors that it takes after the batch moments, as precise; each
            receives a gradient.

    Returns:
        y, and the filtered moments, (C',) or (N / group, C'), as precise and differentiable. They
        are what the running statistics follow.
    """
    plan = Plan(rule, batch_from, correction, tracking, group, filter, len(filter_inputs))
    y_n, posterior = _run(x_n, plan, (*params, *filter_inputs), None, reducer, tracked)
    return y_n, Moments(*posterior)


def _run(
    x_n: Tensor,
    plan: Plan,
    params: Sequence[Tensor],
    given: Moments | None,
    reducer: Reducer | None,
    tracked: Tracked | None,
) -> tuple[Tensor, list[Tensor | None]]:
    plan = plan._replace(dtype=small_dtype(x_n))
    if is_transformed():
        y_n, posterior = _by_formula(x_n, plan, given, tracked, reducer, params)
        return y_n, posterior
    y_n, *more = _Normalize.apply(x_n, plan, given, tracked, reducer, *params)
    if more[0] is not None:
        store(tracked, Tracked(*more[:3]))
    return y_n, more[3:]


def _by_formula(
    x: Tensor,
    plan: Plan,
    given: Moments | None,
    tracked: Tracked | None,
    reducer: Reducer | None,
    params: Sequence[Tensor],
) -> tuple[Tensor, list[Tensor | None]]:
    """y and the filtered moments by the steps themselves, which autograd and transforms follow."""
    (x_n,) = _flattened(x)
    if reducer is None:
        y_n, *more = forward_step(x_n, plan, given, params, tracked)
    else:
        *instance, batch_mean, batch_var = moments_step(x_n, plan, tracked)
        local = Moments(batch_mean, batch_var)
        batch, total = reducer.differentiable(local, x.shape[0] * pixels_of(x))
        y_n, *more = output_step(x_n, plan, Moments(*instance), batch, params, tracked, total)
    return y_n.view(x.shape), more[3:5]


def _differentiable(
    x: Tensor,
    plan: Plan,
    batch: Moments | None,
    reducer: Reducer | None,
    params: Sequence[Tensor],
    needed: Sequence[bool],
    cotangents: Sequence[Tensor],
) -> tuple[Tensor | None, ...]:
    """The gradients of x and the parameters, where ``needed``, as functions to differentiate."""
    # Aliases: another input may be made of one, and a gradient is of this use alone.
    own = [
        t.view_as(t) if t.requires_grad else t.detach().requires_grad_(place == 0)
        for place, t in enumerate((x, *params))
    ]
    given = batch if plan.batch_from is None else None
    y, posterior = _by_formula(own[0], plan, given, None, reducer, own[1:])
    outputs = y, *(() if plan.filter is None else posterior)
    # Of x in any case: another rank's may need one, and waits for this rank's part of it.
    wanted = [own[0], *(t for t, need in zip(own[1:], needed[1:], strict=True) if need)]
    dx, *grads = torch.autograd.grad(
        outputs, wanted, cotangents, create_graph=True, materialize_grads=True
    )
    found = iter(grads)
    to_params = (next(found) if need else None for need in needed[1:])
    return dx if needed[0] else None, *to_params


def _flattened(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """Each as (N, C, H·W) where all can be viewed so: compiled code then serves any dimension."""
    x = tensors[0]
    if x.dim() == 2:
        return tuple(t if t is None else t.unsqueeze(-1) for t in tensors)
    if torch.compiler.is_compiling() or x.dim() == 3 or x.numel() == 0:
        return tensors
    shape = *x.shape[:2], -1
    try:
        return tuple(t if t is None else t.view(shape) for t in tensors)
    except RuntimeError:  # a crop, say: never a copy
        return tensors


def _shaped(y_n: Tensor, x: Tensor) -> Tensor:
    if y_n.dim() == x.dim():
        return y_n
    # No view for autograd: a block under with_cp may not hand out one that is then changed.
    return torch.ops.aten._unsafe_view(y_n, x.shape)


def normalize_reference(
    x_n: Tensor,
    rule: Rule,
    params: Sequence[Tensor],
    *,
    given: Moments | None = None,
    batch_from: int | None = None,
    correction: int = 0,
    group: int | None = None,
) -> Tensor:
    """What :func:`normalize` computes on one rank, differentiated by autograd step by step."""
    instance = instance_moments(x_n, correction)
    batch = given
    if batch is None and batch_from is not None:
        batch = batch_moments(instance, batch_from, group)
    tensors = (*instance, *(batch or ()), *params)
    (scale_nc, offset_nc), _ = apply_rule(Plan(rule, group=group), batch is not None, tensors)
    return reference.affine(x_n, instance.mean, scale_nc, offset_nc)
