"""Bilinear samples in the bins of a roi, as mmcv's RoI operators take them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ['Corners', 'corners', 'grids']


def grids(bins_k2: Tensor, sampling_ratio: int) -> Iterator[tuple[Tensor, int, int]]:
    """Yield (indices of the rois, rows, columns) of each size of the grid of samples in a bin.

    Args:
        bins_k2: Width and height of the bins of each roi, (K, 2).
        sampling_ratio: Samples along each side of a bin; 0 for one a pixel, in whole numbers. A roi
            without an area then has none, and is not among the indices.
    """
    counts = bins_k2.ceil().long()
    if sampling_ratio > 0:
        counts = torch.full_like(counts, sampling_ratio)
    for columns, rows in counts.unique(dim=0).tolist():
        if columns > 0 and rows > 0:
            same = (counts[:, 0] == columns) & (counts[:, 1] == rows)
            yield same.nonzero()[:, 0], rows, columns


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
