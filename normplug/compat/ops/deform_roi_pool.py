"""Deformable RoI pooling: RoIAlign (aligned, average) whose bins are moved one by one.

Dai et al., Deformable Convolutional Networks, ICCV 2017, Sec. 2.2.

offset (K, 2, height, width) in the order x, y, or empty: a bin moves by gamma times the size of its
roi times its offset.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .kernels import promote
from .roi_sampling import Corners, bins, corners, not_finite_set_aside, read, samples

__all__ = ['deform_roi_pool_backward', 'deform_roi_pool_forward']


class _Group(NamedTuple):
    """Rois with grids of one size. Samples are (K, height, width, rows, columns)."""

    rois: Tensor  # their indices
    sample: Tensor  # the index of the image of each, (K, 1, 1, 1, 1)
    y: Tensor
    x: Tensor
    corners: Corners
    reach: Tensor  # what an offset of 1 moves a bin by, x and y: (K, 2)


def _groups(
    size: torch.Size, rois: Tensor, offset: Tensor, pooled_height: int, pooled_width: int,
    spatial_scale: float, sampling_ratio: int, gamma: float,
) -> Iterator[_Group]:  # fmt: skip
    starts, extent, step = bins(rois, pooled_height, pooled_width, spatial_scale, True)
    if offset.numel():
        starts += gamma * extent[:, :, None, None] * offset.reshape(starts.shape)
    for index, y, x in samples(starts, step, sampling_ratio):
        sample = rois[index, 0].long()[:, None, None, None, None]
        yield _Group(index, sample, y, x, corners(y, x, *size), gamma * extent[index])


def deform_roi_pool_forward(
    input: Tensor, rois: Tensor, offset: Tensor, output: Tensor, pooled_height: int,
    pooled_width: int, spatial_scale: float, sampling_ratio: int, gamma: float,
) -> None:  # fmt: skip
    """Pool `input` (N, C, H, W) into `output` (K, C, height, width)."""
    x, rois, offset = promote(input, rois, offset)
    rois, offset, bad = not_finite_set_aside(rois, offset)
    output.zero_()
    for group in _groups(
        x.shape[2:], rois, offset, pooled_height, pooled_width, spatial_scale, sampling_ratio, gamma
    ):
        values = read(x, rois[group.rois, 0].long(), group.corners)
        output[group.rois] = values.mean(-1).to(output.dtype)
    output.masked_fill_(bad, torch.nan)


def deform_roi_pool_backward(
    grad_output: Tensor, input: Tensor, rois: Tensor, offset: Tensor, grad_input: Tensor,
    grad_offset: Tensor, pooled_height: int, pooled_width: int, spatial_scale: float,
    sampling_ratio: int, gamma: float,
) -> None:  # fmt: skip
    """The gradients of `input` and, unless it is empty, `offset` into their buffers."""
    grad, x, rois, offset = promote(grad_output, input, rois, offset)
    rois, offset, _ = not_finite_set_aside(rois, offset)
    x_nhwc = x.permute(0, 2, 3, 1)
    grad_x = torch.zeros_like(x_nhwc, memory_format=torch.contiguous_format)
    grad_place = offset.new_zeros(offset.shape)
    for group in _groups(
        x.shape[2:], rois, offset, pooled_height, pooled_width, spatial_scale, sampling_ratio, gamma
    ):
        at = group.corners
        count = group.y[0, 0, 0].numel()
        grad_bin = (grad[group.rois] / count).permute(0, 2, 3, 1)[:, :, :, None, None]
        for row, column, weight in at.pixels():
            place = (group.sample, row, column)
            grad_x.index_put_(place, grad_bin * weight[..., None], accumulate=True)
        if offset.numel() == 0:
            continue
        # Each sample's slopes, summed over channels. mmcv weighs them by where the sample is before
        # it is moved into the image, and so do we.
        value = {
            (i, j): (x_nhwc[group.sample, row, column] * grad_bin).sum(-1) * at.inside
            for i, row in enumerate((at.top, at.bottom))
            for j, column in enumerate((at.left, at.right))
        }
        upper, lower = value[0, 1] - value[0, 0], value[1, 1] - value[1, 0]
        left, right = value[1, 0] - value[0, 0], value[1, 1] - value[0, 1]
        slope_x = lower * (group.y - at.top) + upper * (at.bottom - group.y)
        slope_y = right * (group.x - at.left) + left * (at.right - group.x)
        slopes = torch.stack((slope_x, slope_y), dim=1).sum((4, 5))
        grad_place[group.rois] = slopes * group.reach[:, :, None, None]
    grad_input.copy_(grad_x.permute(0, 3, 1, 2))
    grad_offset.copy_(grad_place)
