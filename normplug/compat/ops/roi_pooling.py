"""RoIAlign and RoIPool by torchvision's kernels; RoIAlign's maximum by plain torch.

RoIAlign: He et al., Mask R-CNN, ICCV 2017, Sec. 3. RoIPool: Girshick, Fast R-CNN, ICCV 2015,
Sec. 2.1.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .kernels import promote, torchvision_ops
from .roi_sampling import bins, corners, not_finite_set_aside, read, samples

__all__ = ['roi_align_backward', 'roi_align_forward', 'roi_pool_backward', 'roi_pool_forward']

_MAXIMUM = 0  # of mmcv's pool_mode


def roi_align_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor,
    aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
    pool_mode: int, aligned: bool,
) -> None:  # fmt: skip
    """RoIAlign of `input` (N, C, H, W) into `output` (K, C, height, width).

    The average (pool_mode 1) or the maximum (0) of the samples in a bin; where the largest was goes
    to `argmax_y` and `argmax_x`, of the shape of `output`.
    """
    x, rois = promote(input, rois)
    rois, bad = not_finite_set_aside(rois)
    if pool_mode == _MAXIMUM:
        starts, _, step = bins(rois, aligned_height, aligned_width, spatial_scale, aligned)
        _largest_sample(x, rois, samples(starts, step, sampling_ratio), output, argmax_y, argmax_x)
    else:
        output.copy_(
            torchvision_ops().roi_align(
                x, rois, spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned
            )
        )
    output.masked_fill_(bad, torch.nan)


def roi_align_backward(
    grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor,
    aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
    pool_mode: int, aligned: bool,
) -> None:  # fmt: skip
    """The gradient of `roi_align_forward`'s input into `grad_input` (N, C, H, W)."""
    grad, rois = promote(grad_output, rois)
    rois, _ = not_finite_set_aside(rois)
    if pool_mode == _MAXIMUM:
        _spread_to_samples(grad, rois, argmax_y, argmax_x, grad_input)
        return
    grad_input.copy_(
        torchvision_ops()._roi_align_backward(
            grad, rois, spatial_scale, aligned_height, aligned_width, *grad_input.shape,
            sampling_ratio, aligned,
        )
    )  # fmt: skip


def _largest_sample(
    x: Tensor, rois: Tensor, groups: Iterator[tuple[Tensor, Tensor, Tensor]],
    output: Tensor, argmax_y: Tensor, argmax_x: Tensor,
) -> None:  # fmt: skip
    # What mmcv leaves where a bin has no sample: the lowest fp32, whatever the type.
    output.fill_(max(torch.finfo(output.dtype).min, torch.finfo(torch.float32).min))
    argmax_y.fill_(-1)
    argmax_x.fill_(-1)
    for index, y, x_place in groups:
        values = read(x, rois[index, 0].long(), corners(y, x_place, *x.shape[2:]))
        value, which = values.max(-1)
        output[index] = value.to(output.dtype)
        for buffer, place in ((argmax_y, y), (argmax_x, x_place)):
            place = place.flatten(3)[:, None].expand(values.shape).gather(4, which[..., None])
            buffer[index] = place[..., 0].to(buffer.dtype)


def _spread_to_samples(
    grad: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor
) -> None:
    at = corners(*promote(argmax_y, argmax_x), *grad_input.shape[2:])
    sample = rois[:, 0].long()[:, None, None, None]
    channel = torch.arange(grad.size(1), device=grad.device)[:, None, None]
    grad_x = grad.new_zeros(grad_input.shape)
    for row, column, weight in at.pixels():
        share = grad * weight * (argmax_y != -1)
        grad_x.index_put_((sample, channel, row, column), share, accumulate=True)
    grad_input.copy_(grad_x)


def roi_pool_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax: Tensor,
    pooled_height: int, pooled_width: int, spatial_scale: float,
) -> None:  # fmt: skip
    """Max RoIPool of `input` (N, C, H, W) into `output`, `argmax` (K, C, height, width).

    torchvision rounds the edges of a roi before it divides it into bins, mmcv does not. So the
    bins are laid out here, and torchvision pools each as a roi of one bin.
    """
    x, rois = promote(input, rois)
    rois, bad = not_finite_set_aside(rois)
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
    output.masked_fill_(bad, torch.nan)


def roi_pool_backward(
    grad_output: Tensor, rois: Tensor, argmax: Tensor, grad_input: Tensor,
    pooled_height: int, pooled_width: int, spatial_scale: float,
) -> None:  # fmt: skip
    """The gradient of `roi_pool_forward`'s input into `grad_input` (N, C, H, W)."""
    # Of each roi this reads the sample's index only; `argmax` holds the rest.
    grad, rois = promote(grad_output, rois)
    rois, _ = not_finite_set_aside(rois)
    grad_input.copy_(
        torchvision_ops()._roi_pool_backward(
            grad.contiguous(), rois, argmax, spatial_scale, pooled_height, pooled_width,
            *grad_input.shape,
        )
    )  # fmt: skip
