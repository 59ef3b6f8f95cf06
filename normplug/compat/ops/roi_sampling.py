"""Bilinear samples in the bins of a roi, as mmcv's RoI operators take them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ['Corners', 'bins', 'corners', 'not_finite_set_aside', 'read', 'samples']


def not_finite_set_aside(rois: Tensor, *of_rois: Tensor) -> tuple[Tensor, ...]:
    """Return `rois` and `of_rois` with 0 for NaN and Inf, and which rois had them, (K, 1, 1, 1).

    Kernels would read at an invalid address for NaN, which crashes Python on the CPU. Such rois,
    of a training that diverged, must give NaN.
    """
    bad = rois.new_zeros(len(rois), dtype=torch.bool)
    for tensor in (rois, *of_rois):
        if tensor.numel():  # an offset may be left out
            bad |= ~tensor.isfinite().flatten(1).all(1)
    finite = [tensor.nan_to_num(0, 0, 0) for tensor in (rois, *of_rois)]
    return *finite, bad[:, None, None, None]


def bins(
    rois: Tensor, height: int, width: int, spatial_scale: float, aligned: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Starts of the bins (K, 2, height, width), sizes of rois and of bins (K, 2); x before y."""
    start = rois[:, 1:3] * spatial_scale
    size = rois[:, 3:5] * spatial_scale - start
    if aligned:
        start = start - 0.5
    else:
        size = size.clamp(min=1)
    step = size / size.new_tensor([width, height])
    starts = start[:, :, None, None].repeat(1, 1, height, width)
    starts[:, 0] += torch.arange(width, device=rois.device) * step[:, 0, None, None]
    starts[:, 1] += torch.arange(height, device=rois.device)[:, None] * step[:, 1, None, None]
    return starts, size, step


def samples(
    starts: Tensor, step: Tensor, sampling_ratio: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield indices of rois and the y and x of their samples, (K, height, width, rows, columns).

    Once for each size of the grid of samples in a bin: `sampling_ratio` along each side, or where
    that is 0 one a pixel, in whole numbers. Rois without an area then have none, and are left out.
    """
    counts = step.ceil().long()
    if sampling_ratio > 0:
        counts = torch.full_like(counts, sampling_ratio)
    for columns, rows in counts.unique(dim=0).tolist():
        if columns <= 0 or rows <= 0:
            continue
        index = ((counts[:, 0] == columns) & (counts[:, 1] == rows)).nonzero()[:, 0]
        own, part = starts[index, ..., None, None], step[index, :, None, None, None, None]
        row = torch.arange(rows, device=step.device)[:, None] + 0.5
        column = torch.arange(columns, device=step.device) + 0.5
        y, x = torch.broadcast_tensors(
            own[:, 1] + row * part[:, 1] / rows, own[:, 0] + column * part[:, 0] / columns
        )
        yield index, y, x


class Corners(NamedTuple):
    """The four pixels around each sample, where they are sampled; all of the samples' shape."""

    top: Tensor
    left: Tensor
    bottom: Tensor
    right: Tensor
    y: Tensor  # after the move into the image
    x: Tensor
    inside: Tensor

    def pixels(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield y, x and weight of each of the four."""
        down, along = self.y - self.top, self.x - self.left
        for y, weight_y in ((self.top, 1 - down), (self.bottom, down)):
            for x, weight_x in ((self.left, 1 - along), (self.right, along)):
                yield y, x, weight_y * weight_x * self.inside


def read(x: Tensor, images: Tensor, at: Corners) -> Tensor:
    """Samples of rois in `x` (N, C, H, W), each roi in its image (K,): (K, C, height, width, n)."""
    # torch reads from -1 to 1; an image of one pixel has no length.
    ends = [max(size - 1, 1) for size in (x.size(3), x.size(2))]
    places = torch.stack((at.x, at.y), dim=-1) * 2 / at.x.new_tensor(ends) - 1
    values = x.new_empty(len(images), x.size(1), *at.x.shape[1:3], at.x[0, 0, 0].numel())
    for image in images.unique().tolist():
        own = images == image
        read = F.grid_sample(
            x[image, None],
            places[own].reshape(1, -1, values.size(4), 2),
            'bilinear',
            'border',
            True,
        )
        values[own] = read.view(x.size(1), -1, *values.shape[2:]).transpose(0, 1)
    return values * at.inside.flatten(3)[:, None]


def corners(y: Tensor, x: Tensor, height: int, width: int) -> Corners:
    """Where to read an image of (height, width) for samples at y, x.

    Up to one pixel outside, the pixel at the border is read; farther outside, 0.
    """
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    ends = []
    for place, size in ((y, height), (x, width)):
        low = place.clamp(0, size - 1).long()
        ends.append((low, (low + 1).clamp(max=size - 1), place.clamp(0, size - 1)))
    (top, bottom, y), (left, right, x) = ends
    return Corners(top, left, bottom, right, y, x, inside)
