"""The steps of :mod:`normplug.ops.steps` where a collective stands between two of them.

The step before one hands it a single tensor, and the step after it takes that tensor apart, so that
nothing but the collective is left outside compiled code.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from normplug.ops.plan import Plan, tracked_step
from normplug.ops.steps import (
    Sums,
    input_step,
    moments_step,
    pixels_of,
    split,
    sums_step,
)
from normplug.running import Tracked
from normplug.stats import Moments, merge, pack

__all__ = ['local_step', 'merge_step', 'packed_input_step', 'packed_sums_step', 'split_packed']


def local_step(x_n: Tensor, plan: Plan, tracked: Tracked | None) -> tuple[Tensor, ...]:
    """Moments of every instance, (N, C) each; those of the batch for a collective, (3, C')."""
    mean_nc, var_nc, *batch = moments_step(x_n, plan, tracked)
    return mean_nc, var_nc, pack(Moments(*batch), x_n.shape[0] * pixels_of(x_n))


def merge_step(ranks: Tensor, plan: Plan, tracked: Tracked | None) -> tuple[Tensor | None, ...]:
    """Batch moments of all ranks, (C',) each, their count (), and running statistics.

    A step of its own, though small: what it is given is the same on all ranks, and so is the code.
    What it finds is equal to the last bit then, on ranks without samples too, which run no other
    compiled step.

    Args:
        ranks: what the ranks' :func:`local_step` found, (R, 3, C').
        plan: not one with groups.
        tracked: as in :func:`normplug.ops.steps.output_step`, and so are the three last results.
    """
    means, variances, counts = ranks.unbind(1)
    batch, totals = merge(Moments(means, variances), counts)
    return *batch, totals[0], *tracked_step(tracked, plan, batch, totals[0])


def packed_sums_step(dy_n: Tensor, x_n: Tensor, *args: Any) -> tuple[Tensor | None, ...]:
    """:func:`normplug.ops.steps.sums_step`, with the gradients of the batch moments as one tensor.

    It is (2, C'), and the first result; see :func:`split_packed`.
    """
    sums, to_params = split(sums_step(dy_n, x_n, *args))
    *own, to_batch_mean, to_batch_var = sums
    return torch.stack((to_batch_mean, to_batch_var)), *own, *to_params


def split_packed(
    outputs: Sequence[Tensor | None],
) -> tuple[Tensor, Sequence[Tensor], Sequence[Tensor | None]]:
    """What :func:`packed_sums_step` returns: for the collective, for the next step, for params."""
    packed, *rest = outputs
    fields = len(Sums._fields) - 2
    return packed, rest[:fields], rest[fields:]


def packed_input_step(
    dy_n: Tensor,
    x_n: Tensor,
    plan: Plan,
    instance: Moments,
    batch: Moments,
    sums: Sequence[Tensor],
    to_batch: Tensor,
    total: Tensor,
    out_n: Tensor | None,
) -> tuple[Tensor | None]:
    """:func:`normplug.ops.steps.input_step`, with the sum over the ranks as one tensor, (2, C')."""
    sums = Sums(*sums, *to_batch.unbind())
    return input_step(dy_n, x_n, plan, instance, batch, sums, total, out_n)
