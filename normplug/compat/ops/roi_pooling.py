"""RoIAlign and RoIPool by torchvision's kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from .kernels import promote, torchvision_ops

__all__ = ['roi_align_backward', 'roi_align_forward', 'roi_pool_backward', 'roi_pool_forward']


def _only_average(pool_mode: int) -> None:
    if pool_mode != 1:
        raise NotImplementedError(
            "RoIAlign with pool_mode='max' needs mmcv's compiled operators: torchvision averages "
            "only. Set pool_mode='avg' (the default) in the config's roi_layer."
        )


def roi_align_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor,
    aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
    pool_mode: int, aligned: bool,
) -> None:  # fmt: skip
    """Average RoIAlign of `input` (N, C, H, W) into `output` (K, C, height, width)."""
    _only_average(pool_mode)
    x, rois = promote(input, rois)
    output.copy_(
        torchvision_ops().roi_align(
            x, rois, spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned
        )
    )


def roi_align_backward(
    grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor,
    aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
    pool_mode: int, aligned: bool,
) -> None:  # fmt: skip
    """The gradient of `roi_align_forward`'s input into `grad_input` (N, C, H, W)."""
    _only_average(pool_mode)
    grad, rois = promote(grad_output, rois)
    grad_input.copy_(
        torchvision_ops()._roi_align_backward(
            grad, rois, spatial_scale, aligned_height, aligned_width, *grad_input.shape,
            sampling_ratio, aligned,
        )
    )  # fmt: skip


def roi_pool_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax: Tensor,
    pooled_height: int, pooled_width: int, spatial_scale: float,
) -> None:  # fmt: skip
    """Max RoIPool of `input` (N, C, H, W) into `output`, `argmax` (K, C, height, width).

    torchvision rounds the edges of a roi before it divides it into bins, mmcv does not. So the
    bins are laid out here, and torchvision pools each as a roi of one bin.
    """
    x, rois = promote(input, rois)
    start = rois[:, 1:3] * spatial_scale
    size = (rois[:, 3:5] + 1) * spatial_scale - start

    def edges(axis: int, bins: int, limit: int) -> tuple[Tensor, Tensor]:
        """First pixel of each bin and the one after its last, (K, bins) each."""
        step = size[:, axis, None] / bins
        edge = torch.arange(bins + 1, device=x.device) * step + start[:, axis, None]
        return edge[:, :-1].floor().clamp(0, limit), edge[:, 1:].ceil().clamp(0, limit)

    left, right = edges(0, pooled_width, x.size(3))
    top, bottom = edges(1, pooled_height, x.size(2))
    shape_khw = (rois.size(0), pooled_height, pooled_width)
    bins = torch.stack(
        [
            edge.expand(shape_khw)
            for edge in (
                rois[:, 0, None, None],
                left[:, None],
                top[:, :, None],
                right[:, None] - 1,
                bottom[:, :, None] - 1,
            )
        ],
        dim=-1,
    )
    pooled, index = torchvision_ops().roi_pool(x, bins.reshape(-1, 5), 1.0, 1, 1)
    empty = (right <= left)[:, None] | (bottom <= top)[:, :, None]
    empty = (empty | (size <= 0).any(1)[:, None, None])[:, None]
    for value, blank, buffer in ((pooled, 0, output), (index, -1, argmax)):
        value_kchw = value.view(*shape_khw, x.size(1)).permute(0, 3, 1, 2)
        buffer.copy_(value_kchw.masked_fill(empty, blank))


def roi_pool_backward(
    grad_output: Tensor, rois: Tensor, argmax: Tensor, grad_input: Tensor,
    pooled_height: int, pooled_width: int, spatial_scale: float,
) -> None:  # fmt: skip
    """The gradient of `roi_pool_forward`'s input into `grad_input` (N, C, H, W)."""
    # Of each roi this reads the sample's index only; `argmax` holds the rest.
    grad, rois = promote(grad_output, rois)
    grad_input.copy_(
        torchvision_ops()._roi_pool_backward(
            grad.contiguous(), rois, argmax, spatial_scale, pooled_height, pooled_width,
            *grad_input.shape,
        )
    )  # fmt: skip
