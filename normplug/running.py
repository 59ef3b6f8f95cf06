"""Running statistics: when they are updated, and by how much."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from normplug.stats import Moments

__all__ = ['Tracked', 'Tracking', 'in_recomputation', 'moved', 'store']


def in_recomputation() -> bool:
    """Whether this forward is activation checkpointing's second run of a block.

    Both checkpoint modes recompute inside a backward pass, where autograd has a graph task;
    ``torch.is_grad_enabled`` cannot tell. The function is private to torch: used here only, and
    pinned by a test.
    """
    if torch.compiler.is_compiling():  # a compiled graph saves or recomputes by its own rules
        return False
    return torch._C._current_graph_task_id() != -1


class Tracked(NamedTuple):
    """Running statistics: (C,) buffers of any floating dtype, and () int64."""

    mean: Tensor
    var: Tensor
    num_batches: Tensor


class Tracking(NamedTuple):
    """How running statistics follow those of the batches.

    Attributes:
        momentum: weight of the new batch; None for the plain average over all batches so far.
        unbiased: store variances times count / (count − 1), PyTorch's convention.
    """

    momentum: float | None
    unbiased: bool


def moved(tracked: Tracked, how: Tracking, batch: Moments, count: int | Tensor) -> Tracked:
    """The running statistics moved towards a batch's, as ``nn.BatchNorm`` does.

    Nothing moves, and the batch does not count, when it holds fewer than two values per channel
    (no variance can be estimated) or any statistic is NaN or infinite (an AMP step that
    overflowed). All decisions stay on the device.

    Args:
        tracked: the statistics so far.
        how: see :class:`Tracking`.
        batch: biased (C,) moments of the batch.
        count: values per channel in the batch, over all ranks; a tensor () after a collective.
    """
    # NaN and infinity survive a sum, and a float64 sum of float32 statistics does not overflow.
    ok = torch.isfinite(batch.mean.sum() + batch.var.sum()) & (count >= 2)
    num_batches = tracked.num_batches + ok.to(tracked.num_batches.dtype)
    var = batch.var
    if how.unbiased:
        least = (count - 1).clamp(min=1) if isinstance(count, Tensor) else max(count - 1, 1)
        var = var * (count / least)
    step = 1 / num_batches.clamp(min=1) if how.momentum is None else how.momentum
    mean, var = (
        torch.where(ok, old + step * (new - old), old).to(old.dtype)
        for old, new in zip(tracked[:2], (batch.mean, var), strict=True)
    )
    return Tracked(mean, var, num_batches)


@torch.no_grad()
def store(tracked: Tracked, values: Tracked) -> None:
    """Write ``values`` into the buffers, without a derivative of either direction."""
    if forward_ad._current_level >= 0:  # no_grad stops a backward derivative only
        values = Tracked(*(forward_ad.unpack_dual(value).primal for value in values))
    for buffer, value in zip(tracked, values, strict=True):
        buffer.copy_(value)
