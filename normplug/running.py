"""Update running statistics."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from normplug.stats import Moments

__all__ = ['Kept', 'Tracked', 'Tracking', 'in_recomputation', 'moved', 'snapshot', 'store']


def in_recomputation() -> bool:
    """Return whether activation checkpointing is recomputing a block in this forward.

    Both checkpoint modes recompute inside a backward pass, where autograd has a graph task;
    ``torch.is_grad_enabled`` cannot tell this. The function is private in torch: it is used only
    here, and a test checks it.
    """
    if torch.compiler.is_compiling():  # a compiled graph saves or recomputes by its own rules
        return False
    return torch._C._current_graph_task_id() != -1


class Kept:
    """What a layer's forward normalized by, for its recomputation under activation checkpointing.

    A recomputation does not tell which forward it repeats, and not every forward is repeated. It
    is sure where the layer had one forward with the present weights since the last recomputation.
    A copy of the layer starts without.
    """

    def __init__(self) -> None:
        self._tensors: tuple[Tensor, ...] | None = None
        self._forwards = 0
        self._weights = -1

    def put(self, tensors: tuple[Tensor, ...], weight: Tensor) -> None:
        """Keep ``tensors`` of a forward with ``weight``, whose version a step of SGD changes."""
        if weight._version != self._weights:
            self._forwards, self._weights = 0, weight._version
        self._tensors = tensors
        self._forwards += 1

    def take(self) -> tuple[Tensor, ...] | None:
        """Return those of the forward that is repeated; None where that is not sure."""
        tensors = self._tensors if self._forwards == 1 else None
        self._tensors, self._forwards = None, 0
        return tensors

    def __deepcopy__(self, memo: dict) -> 'Kept':
        """Return an empty one."""
        return Kept()

    def __reduce__(self) -> tuple:
        """Pickle an empty one."""
        return Kept, ()


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
        warmup: a number of batches, the first, whose plain average counts where ``momentum`` would
            follow more slowly. (A float, because compiled code takes integers for sizes.)
        pooled: the running variance is that of all values so far, each batch by its weight: also
            between the means of batches, which is most of it for one image that has its own light.
            If not, it is an average of the variances of batches, PyTorch's convention.
    """

    momentum: float | None
    unbiased: bool
    warmup: float = 0.0
    pooled: bool = False

    def step(self, num_batches: Tensor) -> Tensor | float:
        """Return the weight of the new batch, which ``num_batches``, (), counts already."""
        if self.momentum is not None and not self.warmup:
            return self.momentum
        average = 1 / num_batches.clamp(min=1)
        if self.momentum is None:
            return average
        early = average.clamp(min=self.momentum)
        return torch.where(num_batches <= self.warmup, early, self.momentum)


def moved(tracked: Tracked, how: Tracking, batch: Moments, count: int | Tensor) -> Tracked:
    """Return the running statistics after a batch, updated as in ``nn.BatchNorm``.

    They do not change, and the batch is not counted, if it has fewer than two values per channel
    (no variance can be estimated; one is enough where they are ``pooled``) or if a statistic is NaN
    or infinite (an AMP step overflowed).
    All decisions are made on the device.

    Args:
        tracked: the statistics so far.
        how: see :class:`Tracking`.
        batch: biased (C,) moments of the batch.
        count: values per channel in the batch, over all ranks; a tensor () after a collective.
    """
    # NaN and infinity survive a sum, and a float64 sum of float32 statistics does not overflow.
    # Times 0 they are NaN, which is no count. (A condition on the count apart from that would be a
    # symbol to the compiler; Inductor's C++ of torch 2.11 fails on some.)
    ok = (batch.mean.sum() + batch.var.sum()) * 0 + count >= (1 if how.pooled else 2)
    num_batches = tracked.num_batches + ok.to(tracked.num_batches.dtype)
    var = batch.var
    if how.unbiased:
        least = (count - 1).clamp(min=1) if isinstance(count, Tensor) else max(count - 1, 1)
        var = var * (count / least)
    step = how.step(num_batches)
    if how.pooled:  # the mixture of both has the variance V + s (v − V) + s (1 − s) (m − M)²
        var = var + (1 - step) * (batch.mean - tracked.mean).square()
    mean, var = (
        torch.where(ok, old + step * (new - old), old).to(old.dtype)
        for old, new in zip(tracked[:2], (batch.mean, var), strict=True)
    )
    return Tracked(mean, var, num_batches)


def snapshot(tracked: Tracked) -> Tracked:
    """Return copies, for a backward pass that comes when the buffers have moved on."""
    if torch.compiler.is_compiling():
        return Tracked(*_opaque_copies(*tracked))
    return Tracked(*(buffer.clone() for buffer in tracked))


# A graph of torch.compile would keep no clone for its backward, but clone the buffer again, which
# has moved by then (AOTAutograd of torch 2.11). The result of an unknown operator it keeps.
@torch.library.custom_op('normplug::snapshot', mutates_args=())
def _opaque_copies(mean: Tensor, var: Tensor, num_batches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return mean.clone(), var.clone(), num_batches.clone()


@_opaque_copies.register_fake
def _(mean: Tensor, var: Tensor, num_batches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(torch.empty_like(t) for t in (mean, var, num_batches))


@torch.no_grad()
def store(tracked: Tracked, values: Tracked) -> None:
    """Write ``values`` into the buffers, outside of reverse-mode and forward-mode autograd."""
    if forward_ad._current_level >= 0:  # no_grad stops reverse mode only
        values = Tracked(*(forward_ad.unpack_dual(value).primal for value in values))
    for buffer, value in zip(tracked, values, strict=True):
        buffer.copy_(value)
