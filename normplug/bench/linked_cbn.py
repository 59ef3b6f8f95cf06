"""CBN behind a convolution, past its burn-in: its cost includes what it keeps of an iteration."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from normplug.norms import CBN
from normplug.norms.history import entry_of
from normplug.stats import Moments

from .linked import LinkedLayer, convolution_before

__all__ = ['LinkedCBN']


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

    See :func:`convolution_before`; its weight does not train, as CBN has no gradient for it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        conv = convolution_before(channels)
        self._conv = (conv,)  # no part of what is trained
        self.norm = CBN(channels, burnin=0)
        self.norm.link = _OneConvolution(conv)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            # Outputs about as large as what is measured.
            conv.weight.normal_(std=conv.weight[0].numel() ** -0.5, generator=generator)
            for _ in range(self.norm.buffer_num):
                x = torch.randn(2, conv.in_channels, 8, 8, generator=generator)
                h = conv(x)
                batch = Moments(h.mean((0, 2, 3)), h.var((0, 2, 3), correction=0))
                self.norm.history.entries.append(entry_of(conv, x, h, batch))
        self.norm.history.iterations = self.norm.buffer_num

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the CBN, which remembers this iteration."""
        return self.norm(x)

    def moments(self, x: Tensor) -> Moments:
        """By the average of E[x] and E[x²]: the weight has not moved since the past ones."""
        axes = 0, 2, 3
        means, squares = [x.mean(axes)], [x.square().mean(axes)]
        for entry in self.norm.history.entries:
            means.append(entry.mean.to(x))
            squares.append(entry.var.to(x) + entry.mean.to(x).square())
        mean = torch.stack(means).mean(0)
        return Moments(mean, torch.stack(squares).mean(0) - mean.square())

    def _apply(self, fn, recurse: bool = True) -> LinkedCBN:
        super()._apply(fn, recurse)
        self._conv[0]._apply(fn, recurse)
        return self
