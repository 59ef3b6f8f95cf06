"""KN with its link, as in a block of a ResNet: its cost includes the prediction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from normplug.filters import kalman_filter
from normplug.kalman import link_kalman
from normplug.kalman.convolution import convolved
from normplug.kalman.elementwise import rectified
from normplug.norms import KN
from normplug.stats import Moments

from .linked import LinkedLayer

__all__ = ['LinkedKN']

_WIDE = 256


class LinkedKN(LinkedLayer):
    """A KN behind another, ReLU, and a convolution that is not run.

    From 256 channels on the convolution is 1x1 on a quarter of them, as the last of a bottleneck;
    below it is 3x3. The state that comes from the layer before is a constant.
    """

    def __init__(self, channels: int, norm: type[KN] = KN) -> None:
        super().__init__()
        wide = channels >= _WIDE
        before = channels // 4 if wide else channels
        size = 1 if wide else 3
        self.conv = nn.Conv2d(before, channels, size, padding=size // 2, bias=False)
        self.norm = norm(channels)
        first = norm(before)
        chain = nn.Sequential(first, nn.ReLU(), self.conv, self.norm)
        link_kalman(chain, lambda: chain(torch.zeros(2, before, 8, 8)))
        self._before = (first,)  # no part of what is trained
        # A prediction about as large as what there is: with weights of size 1.
        mean = torch.zeros(before, dtype=torch.float64)
        var = torch.full_like(mean, 4 / (before * size**2))
        for name, value in (('state_mean', mean), ('state_var', var)):  # they move to a device
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the KN, with a new prediction."""
        if self.training:
            self.norm.link.session.open()  # as the forward of a whole model does
            state = Moments(self.state_mean, self.state_var)
            self._before[0].link.post(state, tuple(x.shape[2:]))
        return self.norm(x)

    def in_training(self, x: Tensor) -> Tensor:
        """By the filtered moments."""
        norm, used = self.norm, self.filtered(x)
        scale = norm.weight * (used.var + norm.eps).rsqrt()
        mean, scale, bias = (t[:, None, None] for t in (used.mean, scale, norm.bias))
        return (x - mean) * scale + bias

    def filtered(self, x: Tensor) -> Moments:
        """The moments of a batch as they are used, (C,) each, in plain torch."""
        state = Moments(self.state_mean, self.state_var)
        prior = convolved(self.conv, rectified(state), tuple(x.shape[2:]))
        axes = (0, *range(2, x.dim()))
        batch = Moments(x.mean(axes), x.var(axes, correction=0))
        return kalman_filter(batch, *prior, gain=self.norm.gain, limit=self.norm.limit)
