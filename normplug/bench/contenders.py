"""The layers that are measured: ours under a backend, those of torch, and naive ones of ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import gcd

import torch
from torch import Tensor, nn

from normplug.norms import BCN, BRN, GW, BaseNorm, EstBCN, SyncBCN, SyncBRN, SyncKN
from normplug.ops.backend import get_backend, set_backend
from normplug.register import NORMS

from .linked import LinkedLayer
from .linked_cbn import LinkedCBN
from .linked_kn import LinkedKN
from .naive import NaiveSN
from .naive_whitening import NaiveGW, NaiveIterNorm, NaiveSW

__all__ = ['GROUPS', 'LAYERS', 'NAIVE', 'Contender', 'contenders']

GROUPS = 32
_BOUNDS = dict(r_max=3.0, d_max=5.0)  # at the end of its schedule
_GW_GROUPS = 64  # as in the published detectors


def _in_groups(kind: type[BCN], channels: int) -> BCN:
    """A BCN of 32 groups, or of as many as have two channels each.

    Of one channel, and of one pixel, its gradient is a difference of large terms that cancel.
    """
    return kind(channels, num_groups=max(gcd(channels, 2 * GROUPS) // 2, 1))


NAIVE: dict[str, type[nn.Module]] = {
    'naive': NaiveSN,
    'naive-SW': NaiveSW,
    'naive-IterNorm': NaiveIterNorm,
    'naive-GW': NaiveGW,
}
LAYERS: dict[str, Callable[[int], nn.Module]] = {
    **NORMS,
    **NAIVE,
    'GW': partial(GW, num_groups=_GW_GROUPS),
    'naive-GW': partial(NaiveGW, num_groups=_GW_GROUPS),
    'BCN': partial(_in_groups, BCN),
    'SyncBCN': partial(_in_groups, SyncBCN),
    'EstBCN': partial(_in_groups, EstBCN),
    'BRN': partial(BRN, **_BOUNDS),
    'SyncBRN': partial(SyncBRN, **_BOUNDS),
    'CBN': LinkedCBN,
    'KN': LinkedKN,
    'SyncKN': partial(LinkedKN, norm=SyncKN),
    'BN': nn.BatchNorm2d,
    'GN': lambda channels: nn.GroupNorm(GROUPS, channels),
}


class Contender:
    """A layer with random parameters, and the two halves of its training step.

    Args:
        name: key of ``LAYERS``.
        channels: C.
        backend: of :func:`normplug.ops.backend.set_backend`; None for layers that are not ours.
        device: of the layer.
    """

    def __init__(self, name: str, channels: int, backend: str | None, device: str) -> None:
        self.name, self.backend = name, backend
        self.layer = LAYERS[name](channels)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.layer.parameters():
                parameter.normal_(generator=generator)
        self.layer.to(device)

    @property
    def is_ours(self) -> bool:
        """Whether the layer goes through normplug.ops."""
        return isinstance(self.layer, (BaseNorm, LinkedLayer))

    def __str__(self) -> str:
        """The name and, where there is a choice, the backend."""
        return f'{self.name} ({self.backend})' if self.backend else self.name

    def choose_backend(self) -> None:
        """Set the backend of this contender; this is not timed."""
        if self.backend not in (None, get_backend()):
            set_backend(self.backend)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""
        return self.layer(x)

    def backward(self, y: Tensor, x: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
        """Gradients of x and of every parameter, in their order."""
        return torch.autograd.grad(y, (x, *self.layer.parameters()), dy)


def contenders(
    names: list[str], backends: list[str], channels: int, device: str
) -> list[Contender]:
    """A contender for each name and, where it is ours, each backend."""
    return [
        Contender(name, channels, backend, device)
        for name in names
        for backend in (backends if name in NORMS else [None])
    ]
