"""Moments of the inputs of layers, over some iterations of a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from normplug.forward_hooks import HookOfOriginal, input_of
from normplug.norms import BaseNorm
from normplug.population.central_moments import (
    CentralMoments,
    central_moments,
    merge_moments,
    over_ranks,
)
from normplug.running import in_recomputation

__all__ = ['InputMoments']


class InputMoments:
    """Moments of the inputs of layers in training, over iterations and ranks.

    Args:
        layers: of one device.
        drop_nonfinite: leave out an input where it has NaN or infinite values in a channel; if
            not, they are in the total.

    Attributes:
        is_on: whether inputs are added now.
        total: of the iterations so far, on all ranks, (ΣC,) each: the channels of all layers.
    """

    def __init__(self, layers: Sequence[BaseNorm], drop_nonfinite: bool = True) -> None:
        self.is_on = False
        self._drop_nonfinite = drop_nonfinite
        self._layers = list(layers)
        self._own: dict[int, list[CentralMoments]] = {}
        self.clear()
        self._handles = [
            layer.register_forward_pre_hook(HookOfOriginal(self._of_layer(i)), with_kwargs=True)
            for i, layer in enumerate(layers)
        ]

    def _of_layer(self, i: int) -> Callable[[nn.Module, tuple, dict], None]:
        def add(layer: nn.Module, args: tuple, kwargs: dict) -> None:
            if not self.is_on or in_recomputation():
                return
            moments = central_moments(input_of(args, kwargs).detach())
            self._own.setdefault(i, []).append(
                _finite(moments) if self._drop_nonfinite else moments
            )

        return add

    @torch.no_grad()
    def end_iteration(self) -> None:
        """Add the inputs of an iteration to the total; every rank has to call this."""
        own = [
            merge_moments(self._own[i])
            if i in self._own
            else CentralMoments.none(layer.num_features, layer.weight)
            for i, layer in enumerate(self._layers)
        ]
        self._own.clear()
        flat = CentralMoments(*(torch.cat(t) for t in zip(*own, strict=True)))
        self.total = merge_moments([self.total, over_ranks(flat)])

    def clear(self) -> None:
        """Begin anew."""
        self._own.clear()
        channels = sum(layer.num_features for layer in self._layers)
        self.total = CentralMoments.none(channels, self._layers[0].weight)

    def remove(self) -> None:
        """Leave the layers as they were."""
        for handle in self._handles:
            handle.remove()


def _finite(moments: CentralMoments) -> CentralMoments:
    """Those of no values in channels where one is NaN or infinite."""
    packed = torch.stack(moments)
    return CentralMoments(*torch.where(packed.isfinite().all(0), packed, 0))
