"""Running statistics: when they are updated, and by how much."""

import torch
from torch import Tensor

from normplug.stats import Moments

__all__ = ['in_recomputation', 'update_running']


def in_recomputation() -> bool:
    """Whether this forward is activation checkpointing's second run of a block.

    Both checkpoint modes recompute inside a backward pass, where autograd has a graph task;
    ``torch.is_grad_enabled`` cannot tell. The function is private to torch: used here only, and
    pinned by a test.
    """
    if torch.compiler.is_compiling():  # a compiled graph saves or recomputes by its own rules
        return False
    return torch._C._current_graph_task_id() != -1


@torch.no_grad()
def update_running(
    running: Moments,
    num_batches_tracked: Tensor,
    batch: Moments,
    count: int | Tensor,
    momentum: float | None,
    unbiased: bool,
) -> None:
    """Move the running statistics towards a batch's, in place, as ``nn.BatchNorm`` does.

    Nothing changes, and ``num_batches_tracked`` does not count, when the batch holds fewer than
    two values per channel (no variance can be estimated) or any statistic is NaN or infinite (an
    AMP step that overflowed). All decisions stay on the device.

    Args:
        running: (C,) buffers, any floating dtype.
        num_batches_tracked: () int64 buffer.
        batch: biased (C,) moments of the batch.
        count: values per channel in the batch, over all ranks; a tensor () after a collective.
        momentum: weight of the new batch; None for the plain average over all batches so far.
        unbiased: store variances times count / (count − 1), PyTorch's convention.
    """
    finite = torch.isfinite(batch.mean).all() & torch.isfinite(batch.var).all()
    ok = finite & (count >= 2)
    num_batches_tracked.add_(ok.to(num_batches_tracked.dtype))
    var = batch.var
    if unbiased:
        var = var * (count / (count - 1).clamp(min=1) if isinstance(count, Tensor)
                     else count / max(count - 1, 1))  # fmt: skip
    step = 1 / num_batches_tracked.clamp(min=1) if momentum is None else momentum
    for buffer, new in zip(running, (batch.mean, var), strict=True):
        old = buffer.to(new.dtype)
        buffer.copy_(torch.where(ok, old + step * (new - old), old))
