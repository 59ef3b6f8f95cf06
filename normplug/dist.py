"""Statistics over the ranks of a process group.

The statistics of a batch take one collective in each direction. Collectives are outside of the
rule: forward gathers and merges the moments before it calls the rule, and backward sums the
gradients of the merged moments after it. A rank without samples takes part with a count of 0.

The running statistics of a model take one collective for all layers.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from mmengine.dist import get_rank, get_world_size
from torch import Tensor, nn

from normplug import covariance
from normplug.covariance import Covariances
from normplug.precision import small_dtype
from normplug.stats import Moments, pool

__all__ = ['GroupReducer', 'group_reducer', 'randn_of_rank', 'synchronize_running_stats']


class GroupReducer:
    """The collectives over a process group; a ``normplug.ops.Reducer``.

    Every rank of the group must call its methods equally often and in the same order. Nothing
    waits for the device, so that NCCL's collectives stay asynchronous to the host.

    Args:
        group: the ranks to merge over; None for the default group.
    """

    def __init__(self, group: dist.ProcessGroup | None) -> None:
        self.group = group

    def gather(self, own: Tensor) -> Tensor:
        """Stack the tensors of all ranks: (A, B) → (R, A, B)."""
        size = get_world_size(self.group)
        ranks = own.new_empty((size * own.shape[0], *own.shape[1:]))
        dist.all_gather_into_tensor(ranks, own, group=self.group)
        return ranks.unflatten(0, (size, -1))

    def sum(self, own: Tensor) -> Tensor:
        """Sum over the ranks, in place."""
        dist.all_reduce(own, group=self.group)
        return own

    def differentiable(
        self, local: Moments, count: int, spread: Callable[[Tensor], Tensor] = torch.square
    ) -> tuple[Moments, Tensor]:
        """Merge (C,) moments of ``count`` values per channel over the ranks.

        ``spread`` maps deviations of means to what they add to the second moments: squares to
        variances, outer products to covariances. Returns the moments and the total count, ().
        Autograd can differentiate them any number of times.
        """
        mean, var = local
        total = mean.new_full((), count)
        dist.all_reduce(total, group=self.group)
        share = count / total.clamp(min=1)
        merged = _Sum.apply(share * mean, self.group)
        var = var + spread(mean - merged)
        return Moments(merged, _Sum.apply(share * var, self.group)), total


class _Sum(torch.autograd.Function):
    """Sum over ranks; the gradient is the sum of the gradients of the ranks."""

    @staticmethod
    def forward(ctx, own: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group = group
        summed = own.clone()
        dist.all_reduce(summed, group=group)
        return summed

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return _Sum.apply(grad.contiguous(), ctx.group), None


def group_reducer(group: dist.ProcessGroup | None = None) -> GroupReducer | None:
    """Return the reducer over a process group; ``None`` means the default group.

    Returns:
        None if statistics are local: no process group is initialized, or it has one rank.

    Raises:
        ValueError: this rank is not a member of the group.
    """
    size = get_world_size(group)
    if size < 1:  # torch's marker for a group that this rank is not in
        raise ValueError(
            'process_group is a group that this rank is not a member of: give each rank the group '
            'it belongs to (torch.distributed.new_subgroups makes one for every rank)'
        )
    return None if size == 1 else GroupReducer(group)


def randn_of_rank(*shape: int, device: torch.device) -> Tensor:
    """Draw standard normal numbers, float32, that are other ones on each rank.

    mmengine gives the generators of all ranks the same seed. So each rank draws the numbers of all
    and takes its own, which leaves the generators alike. One dtype, whatever a layer's: the same
    state of the generator gives the same numbers.
    """
    ranks = torch.randn(get_world_size(), *shape, device=device, dtype=torch.float32)
    return ranks[get_rank()]


@torch.no_grad()
def synchronize_running_stats(model: nn.Module) -> None:
    """Give the running statistics of ``model`` the same values on all ranks, in place.

    Every layer with buffers ``running_mean`` and ``running_var``, ``running_cov`` (SW) or
    ``running_wm`` (IterNorm) takes part, torch's batch norms too. Means become the mean over the
    ranks, and variances and covariances those of the union of the ranks (laws of total variance and
    covariance), with equal weights, because an exponential average keeps no count. Whitening
    matrices become their mean over the ranks: IterNorm's are the average of those of the batches,
    in which the spread between the means of batches has no part; so it has none between ranks.
    ``num_batches_tracked`` becomes the maximum. Nothing else in the model changes.

    There is one collective for all layers. Every rank of the default group must call this, with
    models of the same layers. Without a process group it does nothing. A second call changes
    nothing.
    """
    size = get_world_size()
    layers = [(layer, kind) for layer in model.modules() if (kind := _running_spread(layer))]
    if size == 1 or not layers:
        return
    pairs = [
        buffer for layer, kind in layers for buffer in (layer.running_mean, layer.get_buffer(kind))
    ]
    counts = [layer.num_batches_tracked for layer, _ in layers if _counts_batches(layer)]
    buffers = [*pairs, *counts]
    # float64 holds every value of the other types, and integers up to 2⁵³.
    dtype = small_dtype(pairs[0], exact=True)
    own = torch.cat([buffer.to(dtype).flatten() for buffer in buffers])
    ranks = own.new_empty(size * own.numel())
    dist.all_gather_into_tensor(ranks, own)
    rows = ranks.view(size, -1).split([buffer.numel() for buffer in buffers], 1)
    values = []
    for i, (layer, kind) in enumerate(layers):
        spread = rows[2 * i + 1].view(size, *layer.get_buffer(kind).shape)
        values += _union(kind, rows[2 * i], spread)
    values += [row.amax(0) for row in rows[len(pairs) :]]
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value.view_as(buffer))


def _union(kind: str, mean: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """The running statistics of all ranks, from those of each: (R, C) and (R, ...)."""
    # Relative to the first rank, so that values that are equal on all ranks do not change at all.
    first = mean[0], spread[0]
    mean, spread = mean - first[0], spread - first[1]
    if kind == 'running_var':
        merged = pool(Moments(mean, spread), 0)
    elif kind == 'running_cov':
        of_blocks = Covariances(mean.view(spread.shape[:-1]), spread)
        merged = covariance.pool(of_blocks)
    else:
        merged = mean.mean(0), spread.mean(0)
    return first[0] + merged[0].flatten(), first[1] + merged[1]


def _running_spread(layer: nn.Module) -> str | None:
    """The name of the running statistic beside the mean, if the layer has both."""
    mean = layer._buffers.get('running_mean')
    if not isinstance(mean, Tensor):
        return None
    kinds = ('running_var', 'running_cov', 'running_wm')
    return next((kind for kind in kinds if isinstance(layer._buffers.get(kind), Tensor)), None)


def _counts_batches(layer: nn.Module) -> bool:
    return isinstance(layer._buffers.get('num_batches_tracked'), Tensor)
