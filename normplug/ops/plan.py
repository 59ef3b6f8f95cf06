"""What a step computes besides its passes over x: the rule, on small tensors; its derivative."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from normplug.running import Tracked, Tracking, moved, store
from normplug.stats import Affine, Moments, pool

__all__ = [
    'Blocks',
    'Filter',
    'Plan',
    'Rule',
    'apply_rule',
    'gradients',
    'per_instance',
    'pull_back',
    'tracked_step',
]

# (instance moments (N, C), batch moments (C,) or None, *parameters) → scale and offset (N, C).
# Plain differentiable torch; the same arguments must give the same result.
Rule = Callable[..., Affine]

# (batch moments (C,) or (groups, C), *its tensors) → moments of the same shape, to use instead.
Filter = Callable[..., Moments]


@dataclass(frozen=True)
class Blocks:
    """Channels in blocks, whose covariances the rule is given in place of variances.

    x is (N, g, d, k, S): g blocks of d rows, each of k consecutive channels, all of whose values
    are samples of the row. The rule sees instance moments as
    :class:`normplug.covariance.Covariances` of shape (N, g, d), those of the batch (g, d), its
    parameters, and ``pixels``, S; it returns a :class:`normplug.covariance.Linear`. See
    :mod:`normplug.ops.whitening_steps`.

    Attributes:
        size: d.
        width: k; d · k divides C. 1 where running statistics are kept.
        root: eps and iterations of :func:`normplug.covariance.inverse_root`, where the rule takes
            the batch's whitening matrices in place of its covariances, and these are averaged.
    """

    size: int
    width: int = 1
    root: tuple[float, int] | None = None


class Plan(NamedTuple):
    """What to compute, apart from the tensors.

    Attributes:
        rule: see :data:`Rule`.
        batch_from: the first channel whose batch moments are computed, and are what the rule is
            given; None to give it running statistics, or nothing where there are none.
        correction: instance variances are divided by H·W − correction (at least by 1).
        tracking: how running statistics move towards the batch moments; None if they do not.
        group: compute batch moments of each ``group`` instances in turn, not of all; it must
            divide N, and excludes a reducer. Running statistics follow the groups' average.
        filter: see :data:`Filter`; like a rule, a plain differentiable function. It changes the
            batch moments before the rule, and the running statistics, see them.
        filter_inputs: how many of the parameters, the last, are for the filter.
        dtype: of moments and rule: see :func:`normplug.precision.small_dtype`.
        blocks: see :class:`Blocks`; with them ``batch_from`` is 0 or None, and there is no
            correction, group or filter.
    """

    rule: Rule
    batch_from: int | None = None
    correction: int = 0
    tracking: Tracking | None = None
    group: int | None = None
    filter: Filter | None = None
    filter_inputs: int = 0
    dtype: torch.dtype = torch.float64
    blocks: Blocks | None = None


def apply_rule(
    plan: Plan, batch_given: bool, tensors: Sequence[Tensor]
) -> tuple[Affine, Moments | None]:
    """Call the rule on a flat list: instance mean and variance, the batch's if given, parameters.

    Parameters may be stored in half precision; the rule sees them as precise as the moments.

    Returns:
        What the rule gives, and the batch moments as it saw them if the plan has a filter.
    """
    mean_nc, var_nc, *rest = tensors
    batch = Moments(rest[0], rest[1]) if batch_given else None
    params = [p.to(mean_nc.dtype) for p in (rest[2:] if batch_given else rest)]
    filtered = None
    if plan.filter is not None:
        own = len(params) - plan.filter_inputs
        batch = filtered = plan.filter(batch, *params[own:])
        params = params[:own]
    if batch is not None:
        batch = Moments(*(per_instance(t, plan.group) for t in batch))
    return plan.rule(Moments(mean_nc, var_nc), batch, *params), filtered


def tracked_step(
    tracked: Tracked | None, plan: Plan, batch: Moments | None, count: int | Tensor
) -> tuple[Tensor, ...]:
    """Move the running statistics in place; under Dynamo, return what they become instead.

    Dynamo, tracing a whole model, takes no writes inside an autograd Function.
    """
    if tracked is None:
        return ()
    if plan.group is not None:  # as the ranks that the groups stand for would, on average
        pooled = plan.tracking.pooled
        batch = pool(batch, 0) if pooled else Moments(*(t.mean(0) for t in batch))
    values = moved(tracked, plan.tracking, batch, count)
    if torch.compiler.is_compiling():
        return tuple(values)
    store(tracked, values)
    return ()


def per_instance(of_batch: Tensor, group: int | None) -> Tensor:
    """What belongs to groups, (N / group, C), for each of their instances: (N, C)."""
    if group is None:
        return of_batch
    return of_batch.unsqueeze(1).expand(-1, group, -1).flatten(0, 1)


def pull_back(
    plan: Plan,
    batch_given: bool,
    tensors: Sequence[Tensor],
    needed: Sequence[bool],
    cotangents: tuple[Tensor, ...],
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """Compute the rule's scale, and the gradient of each tensor where it is ``needed``, else None.

    It is zero where the rule does not use the tensor.
    """

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        affine, filtered = apply_rule(plan, batch_given, tensors)
        return *affine, *(filtered or ())

    (scale_nc, *_), grads = gradients(flat, tensors, needed, lambda _: cotangents)
    return scale_nc, grads


def gradients(
    function: Callable[..., tuple[Tensor, ...]],
    tensors: Sequence[Tensor],
    needed: Sequence[bool],
    cotangents: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]],
) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
    """Compute a function, and the gradient of each tensor where it is ``needed``, else None.

    ``cotangents`` gives those of the function's results, which it is called with.
    """
    if torch.compiler.is_compiling():
        outputs, vjp = torch.func.vjp(function, *tensors)
        grads = vjp(cotangents(outputs))
        return outputs, tuple(g if need else None for g, need in zip(grads, needed, strict=True))
    # The same derivative by plain autograd: two thirds of the time, but Dynamo cannot trace it.
    leaves = [t.detach().requires_grad_(need) for t, need in zip(tensors, needed, strict=True)]
    with torch.enable_grad():
        outputs = function(*leaves)
    values = tuple(output.detach() for output in outputs)
    pairs = zip(outputs, cotangents(values), strict=True)
    # What depends on a tensor that needs a gradient; each result of a rule need not.
    outputs, given = zip(*((o, c) for o, c in pairs if o.requires_grad), strict=True)
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    grads = iter(torch.autograd.grad(outputs, wanted, given, materialize_grads=True))
    return values, tuple(next(grads) if need else None for need in needed)
