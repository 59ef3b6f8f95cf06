"""What a whitened layer has seen of its inputs, outputs or gradients since the last rewriting."""

import torch
from torch import Tensor, nn

from normplug.covariance import Covariances, merge
from normplug.dist import group_reducer
from normplug.precision import small_dtype

__all__ = ['Samples', 'moments_of', 'second_moment_of']


class Samples(nn.Module):
    """Mean (C,) and biased covariance (C, C) over the batches so far, the same on all ranks.

    Buffers, so that a training that stops in the middle of an interval goes on bit for bit.

    Args:
        channels: C.
        scaled: for gradients: second moments E[δδᵀ], those of each iteration scaled to a mean
            eigenvalue of 1, since a batch's size and a loss scaler change them. An iteration with
            NaN or infinite ones, as in a step that AMP skips, does not count.
    """

    count: Tensor
    mean: Tensor
    cov: Tensor

    def __init__(self, channels: int, scaled: bool = False) -> None:
        super().__init__()
        self.scaled = scaled
        self.register_buffer('count', torch.zeros((), dtype=torch.int64))
        self.register_buffer('mean', torch.zeros(channels))
        self.register_buffer('cov', torch.zeros(channels, channels))
        self._pending: list[Tensor] = []  # of this iteration and rank, packed

    def add(self, moments: Covariances, count: int | Tensor) -> None:
        """Note the moments of ``count`` samples of this rank; :meth:`gather` merges them."""
        mean, cov = (t.to(small_dtype(t, exact=True)) for t in moments)
        count = torch.as_tensor(count, dtype=mean.dtype, device=mean.device)
        self._pending.append(torch.cat((mean, cov.flatten(), count.view(1))))

    @torch.no_grad()
    def gather(self) -> None:
        """Merge what was noted on all ranks; every rank has to call this."""
        dtype = small_dtype(self.mean, exact=True)
        state = self.mean, self.cov.flatten(), self.count.view(1)
        so_far = torch.cat([t.to(dtype) for t in state])
        own = _merged(self._pending or [torch.zeros_like(so_far)], len(self.mean))
        self._pending = []
        reducer = group_reducer()
        ranks = own.unsqueeze(0) if reducer is None else reducer.gather(own.view(1, -1))[:, 0]
        new = _merged(list(ranks), len(self.mean))
        if self.scaled:
            new = _scaled(new, len(self.mean))
        total = _merged([so_far, new], len(self.mean))
        mean, cov, count = _parts(total, len(self.mean))
        self.mean.copy_(mean)
        self.cov.copy_(cov)
        self.count.copy_(count.squeeze().round())

    def forget(self) -> None:
        """Start again."""
        self._pending = []
        for buffer in self.buffers():
            buffer.zero_()


def moments_of(samples: Tensor) -> Covariances:
    """Mean (C,) and biased covariance (C, C) of samples (C, S): centred first, then one product."""
    mean = samples.mean(1)
    centred = samples - mean.unsqueeze(1)
    return Covariances(mean, centred @ centred.T / samples.shape[1])


def second_moment_of(samples: Tensor) -> Covariances:
    """E[δδᵀ] (C, C) of samples (C, S), beside a mean of 0."""
    return Covariances(samples.new_zeros(len(samples)), samples @ samples.T / samples.shape[1])


def _scaled(packed: Tensor, channels: int) -> Tensor:
    mean, cov, count = _parts(packed, channels)
    cov = cov / cov.diagonal().mean()
    whole = torch.cat((mean, cov.flatten(), count))
    return torch.where(cov.isfinite().all(), whole, 0)  # also where all of δ is zero


def _merged(packed: list[Tensor], channels: int) -> Tensor:
    means, covs, counts = _parts(torch.stack(packed), channels)
    moments, total = merge(Covariances(means.unsqueeze(1), covs.unsqueeze(1)), counts.squeeze(-1))
    return torch.cat((moments.mean.flatten(), moments.cov.flatten(), total.view(1)))


def _parts(packed: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    mean, cov, count = packed.split((channels, channels * channels, 1), -1)
    return mean, cov.unflatten(-1, (channels, channels)), count
