"""The convolution of centred weights, which the paper of ``MABN`` puts before its norm."""

from mmengine.registry import MODELS
from torch import Tensor, nn

__all__ = ['CenConv2d']


@MODELS.register_module(name='CenConv')
class CenConv2d(nn.Conv2d):
    """``nn.Conv2d`` by its weight less the mean of each output channel; for ``conv_cfg``.

    Yan et al., "Towards Stabilizing Batch Statistics in Backward Propagation of Batch
    Normalization", ICLR 2020. Where the inputs of a layer all have the same mean, its outputs have
    the mean 0. The gradient goes through the centring. Arguments, parameters and their names are
    those of ``nn.Conv2d``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x, (N, C, H, W)."""
        centred = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, centred, self.bias)
