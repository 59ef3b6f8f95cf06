"""What a layer's running statistics should be, added up over its inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from normplug import covariance, stats
from normplug.covariance import Covariances, inverse_root
from normplug.dist import group_reducer
from normplug.forward_hooks import input_of
from normplug.norms import BaseNorm
from normplug.norms.whitening import WhiteningNorm
from normplug.ops import whitening_steps as whitening
from normplug.ops.passes import moments
from normplug.precision import small_dtype
from normplug.stats import Moments

__all__ = ['Total', 'running_statistics', 'total_of']

# Mean (...) and what is averaged beside it.
Pair = tuple[Tensor, Tensor]


def running_statistics(layer: nn.Module) -> Pair:
    """Return the buffers of a norm's running mean, and of its variance or matrices."""
    if isinstance(layer, BaseNorm):
        return layer.running()[:2]
    return layer.running_mean, layer.running_var


def total_of(layer: nn.Module) -> Total:
    """Return an empty total of what the layer averages."""
    if not isinstance(layer, WhiteningNorm):
        return Total(*running_statistics(layer))
    mean, matrix = running_statistics(layer)
    kind = _OfRoots if layer.averages_roots else _OfCovariances
    return kind(mean.view(matrix.shape[:-1]), matrix)


class Total:
    """A forward pre-hook that merges the moments of a layer's inputs.

    Attributes:
        unbiased: whether the layer keeps its variance with Bessel's correction.
    """

    def __init__(self, mean: Tensor, spread: Tensor) -> None:
        self.dtype = small_dtype(mean, exact=True)
        self.found: Pair = tuple(torch.zeros_like(t, dtype=self.dtype) for t in (mean, spread))
        self.count = 0
        self.unbiased = True

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], kwargs: dict) -> None:
        """Add an input of the layer."""
        x = input_of(inputs, kwargs)
        if isinstance(layer, BaseNorm):
            x = x[:, layer.batch_from :]
            self.unbiased = layer.tracks_unbiased(x)
        count = x.numel() // x.shape[1]
        new = self.of(layer, x.unsqueeze(-1) if x.dim() == 2 else x)
        if new is None or count == 0:
            return
        counts = new[0].new_tensor([self.count, count])
        pairs = [torch.stack(pair) for pair in zip(self.found, new, strict=True)]
        self.found = self.merged(*pairs, counts)
        self.count += count

    def of(self, layer: nn.Module, x: Tensor) -> Pair | None:
        """Return the moments of one input (N, C, *spatial); None if it has none."""
        return stats.pool(moments(x, self.dtype), 0) if x.numel() else None

    def merged(self, means: Tensor, spreads: Tensor, counts: Tensor) -> Pair:
        """Return the moments of several sets, of ``counts`` values each."""
        return stats.merge(Moments(means, spreads), counts)[0]

    def over_ranks(self) -> tuple[Pair, float]:
        """Return the moments and the count over all ranks."""
        reducer = group_reducer()
        if reducer is None:
            return self.found, self.count
        mean, spread = self.found
        own = torch.cat([mean.flatten(), spread.flatten(), mean.new_tensor([self.count])])
        means, spreads, counts = reducer.gather(own).split((mean.numel(), spread.numel(), 1), 1)
        counts = counts[:, 0]
        ranks = means.view(-1, *mean.shape), spreads.view(-1, *spread.shape)
        return self.merged(*ranks, counts), counts.sum().item()


class _OfCovariances(Total):
    """Means (g, d) and covariances (g, d, d) of blocks of channels."""

    def of(self, layer: WhiteningNorm, x: Tensor) -> Pair | None:
        if not x.numel():
            return None
        plan = layer.plan(x)
        return whitening.batch_moments(x, whitening.instance_moments(x, plan), plan, None)

    def merged(self, means: Tensor, spreads: Tensor, counts: Tensor) -> Pair:
        return covariance.merge(Covariances(means, spreads), counts)[0]


class _OfRoots(Total):
    """Means (g, d) and whitening matrices (g, d, d), which are averages over batches."""

    def of(self, layer: WhiteningNorm, x: Tensor) -> Pair | None:
        reducer = layer.reducer()
        plan = layer.plan(x)
        packed = whitening.local_step(x, plan, None).packed
        # A rank without samples takes part, as in the layer itself.
        ranks = packed[None] if reducer is None else reducer.gather(packed)
        mean, cov, total, _ = whitening.merge_step(ranks, plan, None)
        if total < 2:  # no covariance can be estimated
            return None
        return mean, inverse_root(cov, *plan.blocks.root)

    def merged(self, means: Tensor, spreads: Tensor, counts: Tensor) -> Pair:
        share = counts / counts.sum().clamp(min=1)
        return tuple(torch.tensordot(share, t, 1) for t in (means, spreads))
