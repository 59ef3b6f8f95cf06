"""Multi-scale deformable attention, by the plain torch that mmcv has for it.

Zhu et al., Deformable DETR, ICLR 2021, Eq. 3. mmcv calls the compiled operator for CUDA tensors
and its own plain torch for others.

value (N, S, M, D) with S the pixels of all levels, spatial_shapes (L, 2) as h, w,
level_start_index (L,), sampling_locations (N, Q, M, L, P, 2) as x, y in [0, 1],
attention_weights (N, Q, M, L, P).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .kernels import promote

__all__ = ['ms_deform_attn_backward', 'ms_deform_attn_forward']


def _attend(
    value: Tensor, spatial_shapes: Tensor, starts: Tensor, places: Tensor, weights: Tensor
) -> Tensor:
    # With mmcv, which imports this package's operators first.
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    levels = [
        value[:, start : start + height * width]
        for start, (height, width) in zip(starts.tolist(), spatial_shapes.tolist(), strict=True)
    ]
    return multi_scale_deformable_attn_pytorch(
        torch.cat(levels, dim=1), spatial_shapes, places, weights
    )


def ms_deform_attn_forward(
    value: Tensor, value_spatial_shapes: Tensor, value_level_start_index: Tensor,
    sampling_locations: Tensor, attention_weights: Tensor, im2col_step: int,
) -> Tensor:  # fmt: skip
    """Attended values (N, Q, M * D) in the type of `value`."""
    inputs = promote(value, sampling_locations, attention_weights)
    result = _attend(inputs[0], value_spatial_shapes, value_level_start_index, *inputs[1:])
    return result.to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor, value_spatial_shapes: Tensor, value_level_start_index: Tensor,
    sampling_locations: Tensor, attention_weights: Tensor, grad_output: Tensor,
    grad_value: Tensor, grad_sampling_loc: Tensor, grad_attn_weight: Tensor, im2col_step: int,
) -> None:  # fmt: skip
    """The gradients of value, sampling locations and attention weights into their buffers."""
    *inputs, grad = promote(value, sampling_locations, attention_weights, grad_output)
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    with torch.enable_grad():
        output = _attend(inputs[0], value_spatial_shapes, value_level_start_index, *inputs[1:])
    grads = torch.autograd.grad(output, inputs, grad)
    # A sample at a coordinate of exactly -1 is outside of its level and has no slope.
    width_height = value_spatial_shapes.flip(1)[:, None]
    outside = (inputs[1] * width_height - 0.5 <= -1).any(-1, keepdim=True)
    grad_value.copy_(grads[0])
    grad_sampling_loc.copy_(grads[1].masked_fill(outside, 0))
    grad_attn_weight.copy_(grads[2])
