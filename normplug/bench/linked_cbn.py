"""CBN behind a convolution, past its burn-in: its cost includes what it keeps of an iteration."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from normplug.norms import CBN
from normplug.norms.history import entry_of
from normplug.stats import Moments

from .linked import LinkedLayer

__all__ = ['LinkedCBN']

_WIDE = 256


class _OneConvolution:
    """A :class:`normplug.norms.cbn.ConvolutionLink` whose convolution does not run.

    What the layer gets is taken for its output for an input of ones: a training has the input
    already, so making it should cost nothing.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        self.conv = conv
        self._x: Tensor | None = None

    def take(self, h: Tensor) -> Tensor:
        """Return an input of the size that fits ``h``; the last one, if it does."""
        size, x = (len(h), self.conv.in_channels, *h.shape[2:]), self._x
        if x is None or (x.shape, x.dtype, x.device) != (size, h.dtype, h.device):
            self._x = h.new_ones(size)
        return self._x


class LinkedCBN(LinkedLayer):
    """A CBN that remembers as many iterations as it can.

    From 256 channels on the convolution is 1x1 on a quarter of them, as the last of a bottleneck;
    below it is 3x3. Its weight does not train: CBN has no gradient for it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = channels >= _WIDE
        before = channels // 4 if wide else channels
        size = 1 if wide else 3
        conv = nn.Conv2d(before, channels, size, padding=size // 2, bias=False)
        self._conv = (conv,)  # no part of what is trained
        self.norm = CBN(channels, burnin=0)
        self.norm.link = _OneConvolution(conv)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            # Outputs about as large as what is measured.
            conv.weight.normal_(std=(before * size**2) ** -0.5, generator=generator)
            for _ in range(self.norm.buffer_num):
                x = torch.randn(2, before, 8, 8, generator=generator)
                h = conv(x)
                batch = Moments(h.mean((0, 2, 3)), h.var((0, 2, 3), correction=0))
                self.norm.history.entries.append(entry_of(conv, x, h, batch))
        self.norm.history.iterations = self.norm.buffer_num

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the CBN, which remembers this iteration."""
        return self.norm(x)

    def in_training(self, x: Tensor) -> Tensor:
        """By the average of E[x] and E[x²]: the weight has not moved since the past ones."""
        axes, norm = (0, *range(2, x.dim())), self.norm
        means, squares = [x.mean(axes)], [x.square().mean(axes)]
        for entry in norm.history.entries:
            means.append(entry.mean.to(x))
            squares.append(entry.var.to(x) + entry.mean.to(x).square())
        mean = torch.stack(means).mean(0)
        var = torch.stack(squares).mean(0) - mean.square()
        scale = norm.weight * (var + norm.eps).rsqrt()
        mean, scale, bias = (t.view(-1, *[1] * len(axes[1:])) for t in (mean, scale, norm.bias))
        return (x - mean) * scale + bias

    def _apply(self, fn, recurse: bool = True) -> LinkedCBN:
        super()._apply(fn, recurse)
        self._conv[0]._apply(fn, recurse)
        return self
