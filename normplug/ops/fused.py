"""moments → rule → affine as one autograd Function.

Forward reads x for its moments, lets the rule turn the (N, C) moments into a scale and an offset,
and writes y. Backward reads x and dy for two sums per (n, c), differentiates the rule on (N, C)
tensors, and writes dx. Between the two it keeps x and (N, C) tensors only: eight transfers of x's
size for a training step, as many as native batch norm.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normplug.covariance import outer
from normplug.ops import whitening_steps as whitening
from normplug.ops.backend import run
from normplug.ops.memory import is_transformed, on_gpu, result_like
from normplug.ops.passes import pixels_of
from normplug.ops.plan import Plan
from normplug.ops.reduced import (
    Reducer,
    local_step,
    merge_step,
    packed_input_step,
    packed_sums_step,
)
from normplug.ops.results import Output
from normplug.ops.steps import (
    backward_step,
    batch_moments,
    forward_step,
    instance_moments,
    output_step,
)
from normplug.running import Tracked, store
from normplug.stats import Moments

__all__ = ['Normalized', 'normalize']


class _Steps(NamedTuple):
    """The steps for variances, or for covariances, which have the same arguments and results.

    Attributes:
        spread: of deviations (..., C') of means, what they add to the second moments.
    """

    forward: Callable
    backward: Callable
    instance_moments: Callable
    batch_moments: Callable
    output: Callable
    local: Callable
    merge: Callable
    packed_sums: Callable
    packed_input: Callable
    spread: Callable[[Tensor], Tensor]


_OF_VARIANCES = _Steps(
    forward_step,
    backward_step,
    instance_moments,
    batch_moments,
    output_step,
    local_step,
    merge_step,
    packed_sums_step,
    packed_input_step,
    torch.square,
)
_OF_COVARIANCES = _Steps(
    whitening.forward_step,
    whitening.backward_step,
    whitening.instance_moments,
    whitening.batch_moments,
    whitening.output_step,
    whitening.local_step,
    whitening.merge_step,
    whitening.packed_sums_step,
    whitening.packed_input_step,
    outer,
)


def _steps(plan: Plan) -> _Steps:
    return _OF_VARIANCES if plan.blocks is None else _OF_COVARIANCES


def _run(plan: Plan, step: Callable, *args: Any) -> Any:
    """Call a step by the chosen backend; on a CPU one for covariances as it is, in plain torch.

    Its products are library calls, which a compiler leaves as they are. What lies between them is
    a hundred launches on a GPU, of which compiled code makes a third; for a CPU plain torch cuts it
    better: compiled, these steps took several times as long there.
    """
    compiled = plan.blocks is None or on_gpu(args[0])
    return run(step, *args) if compiled else step(*args)


class Normalized(NamedTuple):
    """What :func:`normalize` returns.

    Attributes:
        y: in x's shape, dtype and memory format.
        filtered: the batch moments as the plan's filter changed them, (C',) or (N / group, C') of
            the plan's dtype, differentiable; None without a filter.
    """

    y: Tensor
    filtered: Moments | None


def normalize(
    x: Tensor,
    plan: Plan,
    params: Sequence[Tensor],
    running: Tracked | None = None,
    reducer: Reducer | None = None,
) -> Normalized:
    """Normalize ``x`` by the statistics that the plan's rule makes of its moments.

    Differentiable any number of times, backward and forward, and by ``torch.func``. All but a
    first backward runs the plain formula, which keeps more of x's size. As with
    ``nn.BatchNorm2d``, a transform moves no ``running`` that is not an argument of its function.

    Args:
        x: input of shape (N, C) or (N, C, *spatial), up to 3 spatial axes, floating point. N may
            be 0 unless batch moments are computed without a reducer.
        plan: what to compute.
        params: the tensors that the rule takes after the moments, then those of the filter; each
            receives a gradient.
        running: running statistics: what the rule is given, as constants, where the plan takes no
            batch moments; else moved in place if the plan tracks them.
        reducer: reduces batch moments that are computed over ranks.
    """
    if plan.batch_from is None:
        reducer = None
    elif plan.tracking is None:
        running = None
    if is_transformed():
        output = _by_formula(x, plan, running, reducer, params)
        y, filtered, stored = output.y_n, output[1:3], output.running
    else:
        y, *more = _Normalize.apply(x, plan, running, reducer, *params)
        *stored, mean, var = more
        filtered = mean, var
        if stored:
            store(running, Tracked(*stored))
    return Normalized(y, None if plan.filter is None else Moments(*filtered))


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *args):
        # Not spelled out: Dynamo (torch 2.11) takes ctx for one of them where the numbers agree.
        x, plan, running, reducer, *params = args
        y, total, steps = result_like(x), None, _steps(plan)
        x_n, out_n = _flattened(x, y)
        if reducer is None:
            out = _run(plan, steps.forward, x_n, plan, params, running, out_n)
            moments, stored = out[3:7], out.running
        else:
            local = _run(plan, steps.local, x_n, plan, running)
            ranks = reducer.gather(local.packed)
            # Of what a filter or a root makes of the moments, the averages are taken behind it.
            changed = plan.filter is not None or (plan.blocks is not None and plan.blocks.root)
            early, late = (None, running) if changed else (running, None)
            merged = _run(plan, steps.merge, ranks, plan, early)
            instance, batch = Moments(*local[:2]), Moments(*merged[:2])
            total = merged.total
            out = _run(plan, steps.output, x_n, plan, instance, batch, params, late, total, out_n)
            moments, stored = (*instance, *batch), merged.running or out.running
        ctx.save_for_backward(x, total, *moments, *params)
        ctx.plan, ctx.reducer = plan, reducer
        if stored:
            ctx.mark_non_differentiable(*stored)
        elif running is not None and plan.tracking is not None:
            torch.autograd.graph.increment_version(running)  # compiled code writes unnoticed
        if y is None:
            y = _shaped(out.y_n, x)
        # What may be None is last: Dynamo (torch 2.11) drops it, and then marks by the old places.
        return y, *stored, out.filtered_mean, out.filtered_var

    @staticmethod
    def backward(ctx, dy, *others):
        x, total, mean_nc, var_nc, batch_mean, batch_var, *params = ctx.saved_tensors
        needs_dx, _, _, _, *needed = ctx.needs_input_grad
        plan, reducer = ctx.plan, ctx.reducer
        instance = Moments(mean_nc, var_nc)
        batch = None if batch_mean is None else Moments(batch_mean, batch_var)
        to_filtered = None if plan.filter is None else Moments(*others[-2:])
        if not torch.compiler.is_compiling() and torch.is_grad_enabled():  # create_graph=True
            cotangents = dy, *(to_filtered or ())
            needed = needs_dx, *needed
            dx, *to_params = _differentiable(x, plan, batch, reducer, params, needed, cotangents)
            return dx, None, None, None, *to_params
        dx = result_like(x) if needs_dx else None
        dy_n, x_n, out_n = _flattened(dy, x, dx)
        known = dy_n, x_n, plan, instance, batch
        if reducer is None:
            grads = _run(
                plan, _steps(plan).backward, *known, params, needed, to_filtered, needs_dx, out_n
            )
            dx_n, to_params = grads
        else:
            sums = _run(plan, _steps(plan).packed_sums, *known, params, needed, to_filtered)
            to_params, dx_n = sums.to_params, None
            # Also if x needs no gradient here: another rank's may.
            sums = sums._replace(to_batch=reducer.sum(sums.to_batch), to_params=())
            if needs_dx:
                dx_n = _run(plan, _steps(plan).packed_input, *known, sums, total, out_n).dx_n
        if needs_dx and dx is None:
            dx = _shaped(dx_n, x)
        return dx, None, None, None, *to_params


def _by_formula(
    x: Tensor,
    plan: Plan,
    running: Tracked | None,
    reducer: Reducer | None,
    params: Sequence[Tensor],
) -> Output:
    """y and what comes with it by the steps themselves, which autograd and transforms follow."""
    (x_n,) = _flattened(x)
    steps = _steps(plan)
    if reducer is None:
        forward = steps.forward(x_n, plan, params, running)
        output = Output(*forward[:3], forward.running)
    else:
        instance = steps.instance_moments(x_n, plan)
        local = steps.batch_moments(x_n, instance, plan, running)
        count = x.shape[0] * pixels_of(x)
        batch, total = reducer.differentiable(Moments(*local), count, steps.spread)
        output = steps.output(x_n, plan, instance, batch, params, running, total)
    return output._replace(y_n=output.y_n.view(x.shape))


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
    given = Tracked(*batch, None) if batch is not None and plan.batch_from is None else None
    output = _by_formula(own[0], plan, given, reducer, own[1:])
    pairs = zip(output[: len(cotangents)], cotangents, strict=True)
    # A filter may give constants.
    outputs, cotangents = zip(*((o, c) for o, c in pairs if o.requires_grad), strict=True)
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
