"""Switchable Normalization as the paper's equations read, in plain eager torch.

Luo, Ren, Peng, Zhang and Li, "Differentiable Learning-to-Normalize via Switchable Normalization",
ICLR 2019, equations 3 to 5. Only a yardstick: each operation passes over x or keeps a tensor of
its size, and the variances come from E[x²] − E[x]², which loses its digits at large means.
"""

import torch
from torch import Tensor, nn

__all__ = ['NaiveSN']


class NaiveSN(nn.Module):
    """The function of :class:`normplug.SN`, in the shortest code.

    Args:
        num_features: C.
        eps: added to the mixed variance.
        momentum: weight of the new batch in the running statistics.
    """

    _abbr_ = 'bn'

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.mean_weight = nn.Parameter(torch.ones(3))
        self.var_weight = nn.Parameter(torch.ones(3))
        self.register_buffer('running_mean', torch.zeros(num_features))
        self.register_buffer('running_var', torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x of shape (N, C, H, W)."""
        mean_in = x.mean((2, 3), keepdim=True)
        var_in = x.var((2, 3), correction=0, keepdim=True)
        square_in = var_in + mean_in**2
        mean_ln = mean_in.mean(1, keepdim=True)
        var_ln = square_in.mean(1, keepdim=True) - mean_ln**2
        if self.training:
            mean_bn = mean_in.mean(0, keepdim=True)
            var_bn = square_in.mean(0, keepdim=True) - mean_bn**2
            self._update(mean_bn, var_bn, x.numel() // x.shape[1])
        else:
            mean_bn = self.running_mean.view(1, -1, 1, 1)
            var_bn = self.running_var.view(1, -1, 1, 1)
        ratios, var_ratios = self.mean_weight.softmax(0), self.var_weight.softmax(0)
        mean = ratios[0] * mean_in + ratios[1] * mean_ln + ratios[2] * mean_bn
        var = var_ratios[0] * var_in + var_ratios[1] * var_ln + var_ratios[2] * var_bn
        x_hat = (x - mean) / (var + self.eps).sqrt()
        y = x_hat * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return y.to(x.dtype)

    @torch.no_grad()
    def _update(self, mean_bn: Tensor, var_bn: Tensor, count: int) -> None:
        unbiased = var_bn * (count / max(count - 1, 1))
        self.running_mean.lerp_(mean_bn.flatten().to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased.flatten().to(self.running_var.dtype), self.momentum)
