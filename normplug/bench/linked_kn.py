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

from .linked import LinkedLayer, convolution_before

__all__ = ['LinkedKN']


class LinkedKN(LinkedLayer):
    """A KN behind another, ReLU, and a convolution that is not run.

    See :func:`convolution_before`. The state that comes from the layer before is a constant.
    """

    def __init__(self, channels: int, norm: type[KN] = KN) -> None:
        super().__init__()
        self.conv = convolution_before(channels)
        before, inputs = self.conv.in_channels, self.conv.weight[0].numel()
        self.norm = norm(channels)
        first = norm(before)
        chain = nn.Sequential(first, nn.ReLU(), self.conv, self.norm)
        link_kalman(chain, lambda: chain(torch.zeros(2, before, 8, 8)))
        self._before = (first,)  # no part of what is trained
        # A prediction about as large as what there is: with weights of size 1.
        mean = torch.zeros(before, dtype=torch.float64)
        var = torch.full_like(mean, 4 / inputs)
        for name, value in (('state_mean', mean), ('state_var', var)):  # they move to a device
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the KN, with a new prediction."""
        if self.training:
            self.norm.link.session.open()  # as the forward of a whole model does
            state = Moments(self.state_mean, self.state_var)
            self._before[0].link.post(state, tuple(x.shape[2:]))
        return self.norm(x)

    def moments(self, x: Tensor) -> Moments:
        """The batch's, filtered."""
        state = Moments(self.state_mean, self.state_var)
        prior = convolved(self.conv, rectified(state), tuple(x.shape[2:]))
        axes = (0, *range(2, x.dim()))
        batch = Moments(x.mean(axes), x.var(axes, correction=0))
        return kalman_filter(batch, *prior, gain=self.norm.gain, limit=self.norm.limit)
