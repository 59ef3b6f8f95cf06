"""SW, IterNorm and GW as their papers' equations read, in plain eager torch.

Only yardsticks, as :mod:`normplug.bench.naive`: autograd keeps what each operation takes, in x's
precision. The papers are named in the files of :mod:`normplug.norms`.
"""

import torch
from torch import Tensor, nn

__all__ = ['NaiveGW', 'NaiveIterNorm', 'NaiveSW']

_ITERATIONS = 5


class _NaiveWhitening(nn.Module):
    _abbr_ = 'bn'

    def __init__(self, num_features: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))

    def root(self, cov: Tensor) -> Tensor:
        """(cov + eps · I)^(−1/2), (B, d, d), by Newton's iterations."""
        identity = torch.eye(cov.shape[-1]).to(cov)
        cov = cov + self.eps * identity
        trace = cov.diagonal(dim1=1, dim2=2).sum(1).view(-1, 1, 1)
        root = identity.expand_as(cov)
        for _ in range(_ITERATIONS):
            root = 1.5 * root - 0.5 * root.bmm(root).bmm(root).bmm(cov / trace)
        return root / trace.sqrt()

    def scaled(self, x_hat: Tensor) -> Tensor:
        return x_hat * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class _NaiveTracked(_NaiveWhitening):
    """With running statistics of blocks of ``size`` channels."""

    def __init__(
        self, num_features: int, eps: float, momentum: float, size: int, matrix: str
    ) -> None:
        super().__init__(num_features, eps)
        self.momentum, self.size, self.matrix = momentum, min(size, num_features), matrix
        blocks = num_features // self.size
        self.register_buffer('running_mean', torch.zeros(num_features))
        self.register_buffer(matrix, torch.eye(self.size).repeat(blocks, 1, 1))

    def batch(self, x: Tensor) -> Tensor:
        """(N, C, H, W) as (C / d, d, N · H · W)."""
        return x.transpose(0, 1).reshape(-1, self.size, x.numel() // x.shape[1])

    def running(self) -> tuple[Tensor, Tensor]:
        """Mean (C / d, d, 1) and matrix (C / d, d, d)."""
        return self.running_mean.view(-1, self.size, 1), getattr(self, self.matrix)

    @torch.no_grad()
    def update(self, mean: Tensor, matrix: Tensor) -> None:
        self.running_mean.lerp_(mean.flatten().to(self.running_mean), self.momentum)
        running = getattr(self, self.matrix)
        running.lerp_(matrix.to(running), self.momentum)


class NaiveIterNorm(_NaiveTracked):
    """The function of :class:`normplug.IterNorm`, in the shortest code.

    Args:
        num_features: C.
        eps: added to the diagonal of the covariance.
        momentum: weight of the new batch in the running statistics.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(num_features, eps, momentum, 64, 'running_wm')

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x of shape (N, C, H, W)."""
        x_b = self.batch(x)
        if self.training:
            mean = x_b.mean(2, keepdim=True)
            centred = x_b - mean
            root = self.root(centred.bmm(centred.mT) / centred.shape[2])
            self.update(mean, root)
        else:
            mean, root = self.running()
            centred = x_b - mean
        x_hat = root.bmm(centred)
        n, c, h, w = x.shape
        return self.scaled(x_hat.view(c, n, h, w).transpose(0, 1))


class NaiveSW(_NaiveTracked):
    """The function of :class:`normplug.SW` with ``sw_type=2``, in the shortest code.

    Args:
        num_features: C.
        eps: added to the diagonal of the mixed covariance.
        momentum: weight of the new batch in the running statistics.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.01) -> None:
        super().__init__(num_features, eps, momentum, 16, 'running_cov')
        self.sw_mean_weight = nn.Parameter(torch.ones(2))
        self.sw_var_weight = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x of shape (N, C, H, W)."""
        images, pixels = x.shape[0], x.shape[2] * x.shape[3]
        if self.training:
            x_b = self.batch(x)
            mean_bw = x_b.mean(2, keepdim=True)
            centred = x_b - mean_bw
            cov_bw = centred.bmm(centred.mT) / centred.shape[2]
            self.update(mean_bw, cov_bw)
        else:
            mean_bw, cov_bw = self.running()
        x_i = x.reshape(-1, self.size, pixels)
        mean_iw = x_i.mean(2, keepdim=True)
        centred = x_i - mean_iw
        cov_iw = centred.bmm(centred.mT) / pixels
        ratios, cov_ratios = self.sw_mean_weight.softmax(0), self.sw_var_weight.softmax(0)
        mean = ratios[0] * mean_bw.repeat(images, 1, 1) + ratios[1] * mean_iw
        cov = cov_ratios[0] * cov_bw.repeat(images, 1, 1) + cov_ratios[1] * cov_iw
        return self.scaled(self.root(cov).bmm(x_i - mean).view(x.shape))


class NaiveGW(_NaiveWhitening):
    """The function of :class:`normplug.GW`, in the shortest code.

    Args:
        num_features: C.
        eps: added to the diagonal of the covariance.
        num_groups: G.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, *, num_groups: int = 32) -> None:
        super().__init__(num_features, eps)
        self.num_groups = min(num_groups, num_features)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x of shape (N, C, H, W)."""
        x_g = x.reshape(x.shape[0], self.num_groups, -1)
        centred = x_g - x_g.mean(2, keepdim=True)
        root = self.root(centred.bmm(centred.mT) / centred.shape[2])
        return self.scaled(root.bmm(centred).view(x.shape))
