"""The evaluation of every normalizer in TorchScript's part of Python, for ``torch.jit.script``.

In evaluation each normalizes by moments that are sums of the instance's, the layer's and the
running ones, with weights per channel: a rule, which TorchScript cannot call, comes to that.
"""

import torch
from torch import Tensor

from normplug.precision import working_dtype

__all__ = ['at_least_single', 'normalize_scripted', 'single_source']


def at_least_single(t: Tensor) -> Tensor:
    """``t`` in float32; float64 stays."""
    return t.to(working_dtype(t))


def single_source(source: int, like: Tensor) -> Tensor:
    """Ratios, (3, C), that take all of the instance (0), the layer (1) or the running (2)."""
    ratios = torch.zeros([3, like.shape[0]], device=like.device)
    ratios[source] = 1.0
    return ratios


def normalize_scripted(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    mean_ratios: Tensor,
    var_ratios: Tensor,
    eps: float,
    correction: int,
) -> Tensor:
    """What :func:`normplug.ops.normalize_naive` computes, in float32 (float64 for float64) too.

    Args:
        x: (N, C) or (N, C, *spatial).
        weight, bias: (C,).
        running_mean, running_var: (C,), of any finite value where their ratio is 0.
        mean_ratios, var_ratios: (3, C) or (3, 1), of the instance, the layer, the running moments.
        eps: added to the variance.
        correction: 1 for the statistics of the released code, whose instance variances are
            divided by H·W − 1, and of (N, C) the layer's by C − 1.

    Returns:
        y in x's shape, dtype and memory format.
    """
    dtype = working_dtype(x)
    axes = [2, 3, 4][: x.dim() - 2]
    shape = list(x.shape[:2]) + [1] * len(axes)
    mean = x.to(dtype)
    var = torch.zeros_like(mean)
    pixels = 1
    if len(axes) > 0:
        pixels = x[0, 0].numel() if x.shape[0] > 0 else 1
        mean = mean.mean(axes)
        var = (x.to(dtype) - mean.reshape(shape)).square().mean(axes)
        var = var * (pixels / max(pixels - correction, 1))
    layer_mean = mean.mean(1, keepdim=True)
    layer_var = (var + (mean - layer_mean).square()).mean(1, keepdim=True)
    if len(axes) == 0 and correction > 0:
        layer_var = layer_var * (x.shape[1] / max(x.shape[1] - 1, 1))
    a, b = mean_ratios.to(dtype), var_ratios.to(dtype)
    by_mean = a[0] * mean + a[1] * layer_mean + a[2] * running_mean.to(dtype)
    by_var = b[0] * var + b[1] * layer_var + b[2] * running_var.to(dtype)
    scale = weight.to(dtype) * torch.rsqrt(by_var + eps)
    offset = bias.to(dtype) + (mean - by_mean) * scale
    y = (x.to(dtype) - mean.reshape(shape)) * scale.reshape(shape) + offset.reshape(shape)
    return y.to(x.dtype)
