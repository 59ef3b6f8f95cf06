"""mmcv's deformable convolutions by torchvision's kernels; see operators.py for the conventions.

x (N, C, H, W), weight (M, C / group, kh, kw), offset (N, deformable_group * 2 * kh * kw, H', W') in
the order y, x of each kernel point, mask (N, deformable_group * kh * kw, H', W').
"""
# ruff: noqa: N803  (mmcv's keywords)

from __future__ import annotations

import torch
from torch import Tensor

from normplug.compat.operators import promote, torchvision_ops

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
    """The mask and bias that torchvision wants to see even when it uses neither."""
    return x.new_zeros(x.size(0), 1), x.new_zeros(weight.size(0))


def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor,
    **geometry: int,
) -> None:  # fmt: skip
    """Deformable convolution of `input` (N, C, H, W) into `output`."""
    x, weight, offset = promote(input, weight, offset)
    mask_and_bias = _no_mask(x, weight)
    output.copy_(
        torchvision_ops().deform_conv2d(
            x, weight, offset, *mask_and_bias, *_deform_geometry(**geometry), False
        )
    )


def deform_conv_backward_input(
    input: Tensor, offset: Tensor, grad_output: Tensor, grad_input: Tensor, grad_offset: Tensor,
    weight: Tensor, columns: Tensor, **geometry: int,
) -> None:  # fmt: skip
    """The gradients of `deform_conv_forward`'s input and offset into their buffers."""
    x, offset, grad, weight = promote(input, offset, grad_output, weight)
    grads = torchvision_ops()._deform_conv2d_backward(
        grad, x, weight, offset, *_no_mask(x, weight), *_deform_geometry(**geometry), False
    )
    grad_input.copy_(grads[0])
    grad_offset.copy_(grads[2])


def deform_conv_backward_parameters(
    input: Tensor, offset: Tensor, grad_output: Tensor, grad_weight: Tensor,
    columns: Tensor, ones: Tensor, scale: float, **geometry: int,
) -> None:  # fmt: skip
    """`scale` times the gradient of `deform_conv_forward`'s weight into `grad_weight`."""
    x, offset, grad = promote(input, offset, grad_output)
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
    """Modulated deformable convolution of `input` (N, C, H, W) into `output`."""
    x, weight, bias, offset, mask = promote(input, weight, bias, offset, mask)
    if not with_bias:
        bias = _no_mask(x, weight)[1]
    output.copy_(
        torchvision_ops().deform_conv2d(
            x, weight, offset, mask, bias, *_modulated_geometry(**geometry), True
        )
    )


def modulated_deform_conv_backward(
    input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor, mask: Tensor,
    columns: Tensor, grad_input: Tensor, grad_weight: Tensor, grad_bias: Tensor,
    grad_offset: Tensor, grad_mask: Tensor, grad_output: Tensor, with_bias: bool, **geometry: int,
) -> None:  # fmt: skip
    """The gradients of all of `modulated_deform_conv_forward`'s inputs into their buffers."""
    x, weight, bias, offset, mask, grad = promote(input, weight, bias, offset, mask, grad_output)
    if not with_bias:
        bias = _no_mask(x, weight)[1]
    grads = torchvision_ops()._deform_conv2d_backward(
        grad, x, weight, offset, mask, bias, *_modulated_geometry(**geometry), True
    )
    buffers = [grad_input, grad_weight, grad_offset, grad_mask]
    if with_bias:
        buffers.append(grad_bias)
    for buffer, value in zip(buffers, grads, strict=False):
        buffer.copy_(value)
