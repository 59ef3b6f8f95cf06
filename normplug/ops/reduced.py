"""The steps of :mod:`normplug.ops.steps` where a collective stands between two of them.

The step before one hands it a single tensor, and the step after it takes that tensor apart, so that
nothing but the collective is left outside compiled code.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from normplug.ops.passes import pixels_of
from normplug.ops.plan import Plan, tracked_step
from normplug.ops.results import Input, Local, Merged, PackedSums, Sums
from normplug.ops.steps import (
    batch_moments,
    input_step,
    instance_moments,
    sums_step,
)
from normplug.running import Tracked
from normplug.stats import Moments, merge, pack

__all__ = [
    'Reducer',
    'local_step',
    'merge_step',
    'packed_input_step',
    'packed_sums_step',
]


class Reducer(Protocol):
    """Reduces batch statistics, and their gradients, over ranks: one collective each."""

    def gather(self, own: Tensor) -> Tensor:
        """What all ranks give, stacked along a new first axis."""

    def sum(self, own: Tensor) -> Tensor:
        """The sum over the ranks; may be ``own``, changed."""

    def differentiable(
        self, local: Moments, count: int, spread: Callable[[Tensor], Tensor] = torch.square
    ) -> tuple[Moments, Tensor]:
        """Merge (C',) moments of ``count`` values per channel; also gives the total count, ().

        ``spread`` maps deviations of means to what they add to the second moments.
        By operators that autograd differentiates any number of times.
        """


def local_step(x_n: Tensor, plan: Plan, running: Tracked | None) -> Local:
    """Compute the moments of every instance, and those of the batch for a collective."""
    instance = instance_moments(x_n, plan)
    batch = batch_moments(x_n, instance, plan, running)
    return Local(*instance, pack(batch, x_n.shape[0] * pixels_of(x_n)))


def merge_step(ranks: Tensor, plan: Plan, tracked: Tracked | None) -> Merged:
    """Merge the batch moments of all ranks; move the running statistics.

    A step of its own, though small: what it is given is the same on all ranks, and so is the code.
    What it finds is equal to the last bit then, on ranks without samples too, which run no other
    compiled step.

    Args:
        ranks: what the ranks' :func:`local_step` packed, (R, 3, C').
        plan: not one with groups.
        tracked: as in :func:`normplug.ops.steps.output_step`.
    """
    means, variances, counts = ranks.unbind(1)
    batch, totals = merge(Moments(means, variances), counts)
    return Merged(*batch, totals[0], tracked_step(tracked, plan, batch, totals[0]))


def packed_sums_step(
    dy_n: Tensor,
    x_n: Tensor,
    plan: Plan,
    instance: Moments,
    batch: Moments,
    params: Sequence[Tensor],
    needed: Sequence[bool],
    to_filtered: Moments | None,
) -> PackedSums:
    """As :func:`normplug.ops.steps.sums_step`."""
    sums = sums_step(dy_n, x_n, plan, instance, batch, params, needed, to_filtered)
    *own, to_batch_mean, to_batch_var, to_params = sums
    return PackedSums(*own, torch.stack((to_batch_mean, to_batch_var)), to_params)


def packed_input_step(
    dy_n: Tensor,
    x_n: Tensor,
    plan: Plan,
    instance: Moments,
    batch: Moments,
    sums: PackedSums,
    total: Tensor,
    out_n: Tensor | None,
) -> Input:
    """As :func:`normplug.ops.steps.input_step`, once ``sums`` has the sum over the ranks."""
    *own, to_batch, _ = sums
    unpacked = Sums(*own, *to_batch.unbind(), ())
    return Input(input_step(dy_n, x_n, plan, instance, batch, unpacked, total, out_n))
