"""A norm with the link that training gives it, to be measured without the model around it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from normplug.norms import BaseNorm
from normplug.ops import normalize_naive
from normplug.stats import Moments

__all__ = ['LinkedLayer', 'convolution_before']

_WIDE = 256


def convolution_before(channels: int) -> nn.Conv2d:
    """Return a convolution as it stands before a norm of a ResNet.

    From 256 channels on it is 1x1 on a quarter of them, as the last of a bottleneck; below 3x3.
    """
    if channels >= _WIDE:
        return nn.Conv2d(channels // 4, channels, 1, bias=False)
    return nn.Conv2d(channels, channels, 3, padding=1, bias=False)


class LinkedLayer(nn.Module, ABC):
    """The base of layers that are measured with a link.

    Attributes:
        norm: what is measured.
    """

    norm: BaseNorm

    def reference(self, x: Tensor) -> Tensor:
        """The output for x, (N, C, H, W), in plain torch, differentiated step by step."""
        norm = self.norm
        if not norm.takes_batch_statistics(x):
            return normalize_naive(x, norm.plan(x), norm.rule_params(), norm.running())
        used = self.moments(x)
        scale = norm.weight * (used.var + norm.eps).rsqrt()
        mean, scale, bias = (t[:, None, None] for t in (used.mean, scale, norm.bias))
        return (x - mean) * scale + bias

    @abstractmethod
    def moments(self, x: Tensor) -> Moments:
        """By what training normalizes x, (C,) each, in plain torch."""
