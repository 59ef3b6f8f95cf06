"""mmcv's deformable convolutions, v1 and v2 (modulated), by torchvision's kernels.

x (N, C, H, W), weight (M, C / group, kh, kw), offset (N, deformable_group * 2 * kh * kw, H', W') in
the order y, x of each kernel point, mask (N, deformable_group * kh * kw, H', W').

v1: Dai et al., Deformable Convolutional Networks, ICCV 2017, Eq. 2. v2: Zhu et al., Deformable
ConvNets v2, CVPR 2019, Eq. 1.
"""
# ruff: noqa: N803  (mmcv's keywords)

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .kernels import promote, torchvision_ops

__all__ = [
    'deform_conv_backward_input',
    'deform_conv_backward_parameters',
    'deform_conv_forward',
    'modulated_deform_conv_backward',
    'modulated_deform_conv_forward',
]


def _deform_geometry(
    *, kW, kH, dW, dH, padW, padH, dilationW, dilationH, group, deformable_group, im2col_step
) -> tuple[int, ...]:
    """torchvision's order of the integers of a deformable convolution."""
    return dH, dW, padH, padW, dilationH, dilationW, group, deformable_group


def _modulated_geometry(
    *, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w,
    group, deformable_group,
) -> tuple[int, ...]:  # fmt: skip
    """torchvision's order of the integers of a modulated deformable convolution."""
    return stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group


def _no_mask(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mask and bias that torchvision requires even if it uses neither."""
    return x.new_zeros(x.size(0), 1), x.new_zeros(weight.size(0))


def _offset_grad(
    grad: Tensor, offset: Tensor, kernel_size: tuple[int, int], geometry: tuple[int, ...]
) -> Tensor:
    """torchvision's gradient of `offset`, without what mmcv counts as outside of the image.

    A sample at a coordinate of exactly -1 is outside, and has the gradient 0 in mmcv; torchvision
    gives the slope towards the image there. Offsets that start at zero hit it wherever the padding
    reaches.
    """
    shape = (len(offset), -1, *kernel_size, 2, *offset.shape[2:])  # N, group, kh, kw, yx, H', W'
    outside: bool | Tensor = False
    for axis, points in enumerate(offset.reshape(shape).unbind(4)):
        stride, padding, dilation = (geometry[2 * i + axis] for i in range(3))
        kernel = torch.arange(kernel_size[axis], device=offset.device) * dilation
        place = torch.arange(offset.size(2 + axis), device=offset.device) * stride - padding
        start = kernel.view(-1, *[1] * (3 - axis)) + place.view(-1, *[1] * (1 - axis))
        outside = (start + points <= -1) | outside
    return grad.view(shape).masked_fill(outside.unsqueeze(4), 0).view_as(offset)


def _of_output_size(sampling: Tensor, channels: int, output: Tensor) -> Tensor:
    """The offset or mask of a modulated convolution as its kernel reads it.

    mmcv does not look at its shape: it reads the first channels * H' * W' elements of each sample.
    DyHead and GLIP rely on it, whose offsets are those of a larger level.

    Raises:
        ValueError: It has fewer elements.
    """
    size = (channels, *output.shape[2:])
    flat = sampling.flatten(1)
    if flat.size(1) < size[0] * size[1] * size[2]:
        raise ValueError(
            f'a modulated deformable convolution with output {tuple(output.shape)} needs offsets '
            f'or masks of {size} for each sample, got {tuple(sampling.shape[1:])}'
        )
    return flat[:, : size[0] * size[1] * size[2]].view(-1, *size)


def _nan_set_aside(offset: Tensor) -> tuple[Tensor, Tensor]:
    """Return `offset` with 0 for NaN, and the places of NaN in the output, (N, 1, H', W').

    torchvision's CPU kernel would read at an invalid address for NaN and crash Python.
    """
    nan = offset.isnan()
    return offset.masked_fill(nan, 0), nan.any(1, keepdim=True)


def _modulated_sampling(
    offset: Tensor, mask: Tensor, weight: Tensor, geometry: tuple[int, ...], output: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Offset and mask of the size of `output`, and where an offset was NaN."""
    points = geometry[-1] * weight[0, 0].numel()
    offset, nan = _nan_set_aside(_of_output_size(offset, 2 * points, output))
    return offset, _of_output_size(mask, points, output), nan


def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor,
    **geometry: int,
) -> None:  # fmt: skip
    """Deformable convolution of `input` (N, C, H, W) into `output`."""
    x, weight, offset = promote(input, weight, offset)
    offset, nan = _nan_set_aside(offset)
    mask_and_bias = _no_mask(x, weight)
    result = torchvision_ops().deform_conv2d(
        x, weight, offset, *mask_and_bias, *_deform_geometry(**geometry), False
    )
    output.copy_(result.masked_fill(nan, torch.nan))


def deform_conv_backward_input(
    input: Tensor, offset: Tensor, grad_output: Tensor, grad_input: Tensor, grad_offset: Tensor,
    weight: Tensor, columns: Tensor, **geometry: int,
) -> None:  # fmt: skip
    """The gradients of `deform_conv_forward`'s input and offset into their buffers."""
    x, offset, grad, weight = promote(input, offset, grad_output, weight)
    offset, nan = _nan_set_aside(offset)
    grad = grad.masked_fill(nan, torch.nan)
    order = _deform_geometry(**geometry)
    grads = torchvision_ops()._deform_conv2d_backward(
        grad, x, weight, offset, *_no_mask(x, weight), *order, False
    )
    grad_input.copy_(grads[0])
    grad_offset.copy_(_offset_grad(grads[2], offset, weight.shape[2:], order))


def deform_conv_backward_parameters(
    input: Tensor, offset: Tensor, grad_output: Tensor, grad_weight: Tensor,
    columns: Tensor, ones: Tensor, scale: float, **geometry: int,
) -> None:  # fmt: skip
    """`scale` times the gradient of `deform_conv_forward`'s weight into `grad_weight`."""
    x, offset, grad = promote(input, offset, grad_output)
    offset, nan = _nan_set_aside(offset)
    grad = grad.masked_fill(nan, torch.nan)
    # The gradient of the weight does not depend on the weight, which mmcv does not pass.
    weight = torch.zeros_like(grad_weight, dtype=x.dtype)
    grads = torchvision_ops()._deform_conv2d_backward(
        grad, x, weight, offset, *_no_mask(x, weight), *_deform_geometry(**geometry), False
    )
    grad_weight.copy_(grads[1] * scale)


def modulated_deform_conv_forward(
    input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor, mask: Tensor,
    output: Tensor, columns: Tensor, with_bias: bool, **geometry: int,
) -> None:  # fmt: skip
    """Modulated deformable convolution of `input` (N, C, H, W) into `output`.

    Raises:
        ValueError: `offset` or `mask` has fewer elements than `output` needs.
    """
    x, weight, bias, offset, mask = promote(input, weight, bias, offset, mask)
    if not with_bias:
        bias = _no_mask(x, weight)[1]
    order = _modulated_geometry(**geometry)
    offset, mask, nan = _modulated_sampling(offset, mask, weight, order, output)
    result = torchvision_ops().deform_conv2d(x, weight, offset, mask, bias, *order, True)
    output.copy_(result.masked_fill(nan, torch.nan))


def modulated_deform_conv_backward(
    input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor, mask: Tensor,
    columns: Tensor, grad_input: Tensor, grad_weight: Tensor, grad_bias: Tensor,
    grad_offset: Tensor, grad_mask: Tensor, grad_output: Tensor, with_bias: bool, **geometry: int,
) -> None:  # fmt: skip
    """The gradients of all of `modulated_deform_conv_forward`'s inputs into their buffers."""
    x, weight, bias, offset, mask, grad = promote(input, weight, bias, offset, mask, grad_output)
    if not with_bias:
        bias = _no_mask(x, weight)[1]
    order = _modulated_geometry(**geometry)
    offset, mask, nan = _modulated_sampling(offset, mask, weight, order, grad)
    grad = grad.masked_fill(nan, torch.nan)
    grads = torchvision_ops()._deform_conv2d_backward(
        grad, x, weight, offset, mask, bias, *order, True
    )
    grad_input.copy_(grads[0])
    grad_weight.copy_(grads[1])
    # What the kernel did not read has the gradient 0.
    offset_grad = _offset_grad(grads[2], offset, weight.shape[2:], order)
    for buffer, value in ((grad_offset, offset_grad), (grad_mask, grads[3])):
        unread = buffer[0].numel() - value[0].numel()
        buffer.copy_(F.pad(value.flatten(1), (0, unread)).view(buffer.shape))
    if with_bias:
        grad_bias.copy_(grads[4])
