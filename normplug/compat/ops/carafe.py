"""CARAFE: upsampling by kernels that are predicted at each place.

Wang et al., CARAFE: Content-Aware ReAssembly of FEatures, ICCV 2019, Eq. 4.

features (N, C, H, W), masks (N, group_size * k * k, H * scale, W * scale). In the code: G groups of
C / G channels, pixels as (H, scale, W, scale). One tap of the kernel is processed at a time: all
of them at once would take k * k feature maps.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor

from .kernels import promote

__all__ = ['carafe_backward', 'carafe_forward', 'carafe_naive_backward', 'carafe_naive_forward']


def _taps(
    features: Tensor, masks: Tensor, kernel_size: int, group_size: int, scale_factor: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Views for each tap: features (N, G, C / G, H, 1, W, 1), masks (N, G, 1, H, s, W, s).

    `features` are padded by the radius of the kernel.
    """
    n, c, h, w = features.shape
    h, w = h - kernel_size + 1, w - kernel_size + 1
    pixels = (h, scale_factor, w, scale_factor)
    masks = masks.contiguous().view(n, group_size, kernel_size**2, 1, *pixels)
    grouped = features.view(n, group_size, c // group_size, *features.shape[2:])
    for tap in range(kernel_size**2):
        top, left = divmod(tap, kernel_size)
        shifted = grouped[..., top : top + h, left : left + w]
        yield shifted[..., :, None, :, None], masks[:, :, tap]


def _pad(features: Tensor, kernel_size: int) -> Tensor:
    return F.pad(features, [kernel_size // 2] * 4)


def carafe_naive_forward(
    features: Tensor, masks: Tensor, output: Tensor,
    kernel_size: int, group_size: int, scale_factor: int,
) -> None:  # fmt: skip
    """Reassembled features (N, C, H * scale, W * scale) into `output`."""
    x, masks = promote(features, masks)
    sizes = (kernel_size, group_size, scale_factor)
    total = sum(pixels * mask for pixels, mask in _taps(_pad(x, kernel_size), masks, *sizes))
    output.copy_(total.reshape(output.shape))


def carafe_naive_backward(
    grad_output: Tensor, features: Tensor, masks: Tensor, grad_input: Tensor, grad_masks: Tensor,
    kernel_size: int, group_size: int, scale_factor: int,
) -> None:  # fmt: skip
    """The gradients of features and masks into `grad_input` and `grad_masks`."""
    x, masks, grad = promote(features, masks, grad_output)
    x = _pad(x, kernel_size)
    sizes = (kernel_size, group_size, scale_factor)
    grad_x, grad_m = x.new_zeros(x.shape), masks.new_zeros(masks.shape)
    n, c, h, w = features.shape
    grad = grad.reshape(n, group_size, c // group_size, h, scale_factor, w, scale_factor)
    for (pixels, mask), (grad_pixels, grad_mask) in zip(
        _taps(x, masks, *sizes), _taps(grad_x, grad_m, *sizes), strict=True
    ):
        grad_pixels += (grad * mask).sum((4, 6), keepdim=True)
        grad_mask += (grad * pixels).sum(2, keepdim=True)
    radius = kernel_size // 2
    grad_input.copy_(grad_x[..., radius : radius + h, radius : radius + w])
    grad_masks.copy_(grad_m)


def carafe_forward(
    features: Tensor, masks: Tensor, rfeatures: Tensor, routput: Tensor, rmasks: Tensor,
    output: Tensor, kernel_size: int, group_size: int, scale_factor: int,
) -> None:  # fmt: skip
    """As `carafe_naive_forward`; the features go to `rfeatures` too, for the backward."""
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, kernel_size, group_size, scale_factor)


def carafe_backward(
    grad_output: Tensor, rfeatures: Tensor, masks: Tensor, rgrad_output: Tensor,
    rgrad_input_hs: Tensor, rgrad_input: Tensor, rgrad_masks: Tensor, grad_input: Tensor,
    grad_masks: Tensor, kernel_size: int, group_size: int, scale_factor: int,
) -> None:  # fmt: skip
    """As `carafe_naive_backward`, of the features that `carafe_forward` left in `rfeatures`."""
    carafe_naive_backward(
        grad_output, rfeatures, masks, grad_input, grad_masks, kernel_size, group_size, scale_factor
    )
