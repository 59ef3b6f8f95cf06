"""Batch statistics over the ranks of a process group: one collective in each direction.

The collectives stand outside the rule: forward merges the moments before the rule sees them, and
backward sums the gradients of the merged moments after it. A rank without samples takes part in
both, with a count of 0.
"""

import torch
import torch.distributed as dist
from mmengine.dist import get_world_size
from torch import Tensor

from normplug.stats import Moments, merge

__all__ = ['GroupReducer', 'group_reducer']


class GroupReducer:
    """Merges moments, weighted by count, over a process group; a ``normplug.ops.Reducer``.

    Every rank of the group must call both methods equally often and in the same order. Nothing
    waits for the device, so that NCCL's collectives stay asynchronous to the host.

    Args:
        group: the ranks to merge over; None for the default group.
    """

    def __init__(self, group: dist.ProcessGroup | None) -> None:
        self.group = group

    def forward(self, local: Moments, count: int) -> tuple[Moments, Tensor]:
        """Merge the ranks' moments.

        Args:
            local: (C,) moments of this rank, finite also where ``count`` is 0.
            count: values per channel on this rank.

        Returns:
            The merged (C,) moments in the type of ``local``, zero if no rank has a value, equal
            on all ranks to the last bit; their count (), float64.
        """
        mean, var = local
        # In float64, whatever the moments are: float32 has no odd integer above 2²⁴, 16 images of
        # 1024² pixels. These few kilobytes cost latency, not bandwidth.
        own = torch.cat(
            [mean.double(), var.double(), mean.new_full((1,), count, dtype=torch.float64)]
        )
        ranks = own.new_empty(get_world_size(self.group) * own.numel())
        dist.all_gather_into_tensor(ranks, own, group=self.group)
        means, variances, counts = ranks.view(-1, own.numel()).split([len(mean), len(var), 1], 1)
        merged, total = merge(Moments(means, variances), counts.squeeze(1))
        return Moments(*(t.to(mean.dtype) for t in merged)), total

    def backward(self, grad: Moments) -> Moments:
        """Sum the ranks' (C,) gradients of the merged moments."""
        summed = torch.cat(grad)
        dist.all_reduce(summed, group=self.group)
        return Moments(*summed.chunk(2))


def group_reducer(group: dist.ProcessGroup | None = None) -> GroupReducer | None:
    """The reducer over a process group, None for the default one.

    Returns:
        None where statistics are local: no process group is initialized, or it has one rank.

    Raises:
        ValueError: this rank is not a member of the group.
    """
    size = get_world_size(group)
    if size < 1:  # torch's answer for a group of other ranks
        raise ValueError(
            'process_group is a group that this rank is no member of: give each rank the group '
            'it belongs to (torch.distributed.new_subgroups makes one for every rank)'
        )
    return None if size == 1 else GroupReducer(group)
