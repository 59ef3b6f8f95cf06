"""Squares of the gradients of γ and β by image, summed over the images of a training's steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from normplug.norms import BaseNorm
from normplug.precision import small_dtype

__all__ = ['SampleGradients']


class SampleGradients:
    """Sums over images of (dL_j/dγ)² and (dL_j/dβ)², of the layers together.

    L_j is the loss of image j. The loss of an iteration has to be the mean over the N images of
    this rank, so that dL_j/dγ is N times what backward has of image j. In the heads of a two-stage
    detector the "images" are RoIs. Calls of a layer with the same N in one iteration, such as those
    of a head on the levels of a pyramid, are of the same images: their gradients are summed before
    they are squared.

    All small tensors are (2, ΣC): rows γ and β, the channels of all layers one after the other.

    Args:
        layers: of one device; each with a γ or β that takes gradients. Those that are not of this
            package have to be added by :meth:`add`.
        loss_factor: returns, during backward, by what the loss of the iteration is divided.

    Attributes:
        is_on: whether gradients are added now.
        sizes: C of each layer.
        sums, counts: of :meth:`take`, so far.
    """

    def __init__(
        self, layers: Sequence[nn.Module], loss_factor: Callable[[], float] = lambda: 1.0
    ) -> None:
        self.sizes = [layer.num_features for layer in layers]
        self.is_on = True
        self._loss_factor = loss_factor
        weight = layers[0].weight
        dtype = small_dtype(weight, exact=True)
        self.sums = torch.zeros(2, sum(self.sizes), dtype=dtype, device=weight.device)
        self.counts = torch.zeros_like(self.sums)
        self._places = torch.arange(self.sums.shape[1], device=weight.device).split(self.sizes)
        self._ones = torch.ones_like(self.sums[0]).split(self.sizes)
        self._seen: dict[tuple[int, int], Tensor] = {}  # by layer and N: (2, N, C)
        self._factors: dict[tuple[int, int], float] = {}  # of L_j's gradient by the loss's
        self._handles = [
            layer.register_sample_grad_hook(partial(self.add, i))
            for i, layer in enumerate(layers)
            if isinstance(layer, BaseNorm)
        ]

    def add(self, i: int, to_weight: Tensor, to_bias: Tensor) -> None:
        """Add the gradients of γ and β of the i-th layer by instance, (N, C) each, of one call."""
        if not self.is_on:
            return
        images = to_weight.shape[0]
        new = torch.stack((to_weight, to_bias))
        known = self._seen.get((i, images))
        self._seen[i, images] = new if known is None else known + new
        self._factors[i, images] = images * self._loss_factor()

    @torch.no_grad()
    def end_iteration(self, loss_scale: Tensor | None = None) -> None:
        """Square what the calls of an iteration, forward and backward, have added.

        Channels whose gradients are not finite are not counted.

        Args:
            loss_scale: by what the loss was multiplied (AMP), ().
        """
        if not self._seen:
            return
        keys = list(self._seen)
        squares = [rows.square().sum(1) for rows in self._seen.values()]
        torch._foreach_mul_(squares, [self._factors[key] ** 2 for key in keys])
        images = torch._foreach_mul([self._ones[i] for i, _ in keys], [float(n) for _, n in keys])
        found, images = torch.cat(squares, 1).to(self.sums.dtype), torch.cat(images)
        if loss_scale is not None:
            found = found / loss_scale.to(found.dtype).square()
        finite = found.isfinite()
        places = torch.cat([self._places[i] for i, _ in keys])
        self.sums.index_add_(1, places, torch.where(finite, found, 0))
        self.counts.index_add_(1, places, torch.where(finite, images, 0))
        self._seen.clear()

    def take(self) -> tuple[Tensor, Tensor]:
        """Return sums and numbers of images since the last call, (2, ΣC) each, of this rank."""
        taken = self.sums, self.counts
        self.clear()
        return taken

    def clear(self) -> None:
        """Forget what was added since the last :meth:`take`."""
        self._seen.clear()
        self.sums, self.counts = torch.zeros_like(self.sums), torch.zeros_like(self.counts)

    def remove(self) -> None:
        """Leave the layers as they were."""
        for handle in self._handles:
            handle.remove()
