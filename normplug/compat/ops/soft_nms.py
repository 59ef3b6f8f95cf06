"""Soft-NMS: boxes that overlap a better one lose score instead of being removed at once.

Bodla et al., Soft-NMS -- Improving Object Detection With One Line of Code, ICCV 2017, Eq. 1-3.
mmcv runs it on the CPU for boxes on any device; there numpy has the smallest cost per step.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .kernels import promote

__all__ = ['softnms']


def softnms(
    boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float,
    min_score: float, method: int, offset: int,
) -> Tensor:  # fmt: skip
    """Indices of the kept boxes, by falling new score; boxes and new scores go to `dets` (N, 5).

    The method multiplies the score of a box that has the IoU u with a better one by
    naive (0): 0 if u >= `iou_threshold`; linear (1): 1 - u if u >= `iou_threshold`;
    gaussian (2): exp(-u^2 / `sigma`). Below `min_score` it is dropped; the best box never is.
    `offset` is added to widths and heights. Rows of `dets` beyond the kept boxes are left alone.
    """
    boxes, scores = promote(boxes.detach(), scores.detach())
    x1, y1, x2, y2 = boxes.numpy().T
    areas = (x2 - x1 + offset) * (y2 - y1 + offset)
    # A column per box. The order of the columns decides between equal scores, so that they move
    # as mmcv moves them.
    rows = np.stack([x1, y1, x2, y2, areas, scores.numpy()])
    index = np.arange(len(x1))
    kept, size = 0, len(x1)
    while kept < size:
        score = rows[5, kept:size]
        # One that is not a number is found only where it stands first.
        best = kept + (0 if np.isnan(score[0]) else np.nanargmax(score))
        rows[:, [kept, best]] = rows[:, [best, kept]]
        index[[kept, best]] = index[[best, kept]]
        kept += 1
        rest = rows[:, kept:size]
        rest[5] *= _weight(_iou(rows[:, kept - 1], rest, offset), iou_threshold, sigma, method)
        stays = ~(rest[5] < min_score)
        # The last that stays moves to where the first was dropped, and so on.
        count = np.count_nonzero(stays)
        holes = kept + np.flatnonzero(~stays[:count])
        fillers = kept + count + np.flatnonzero(stays[count:])[::-1]
        rows[:, holes] = rows[:, fillers]
        index[holes] = index[fillers]
        size = kept + count
    dets[:kept] = torch.from_numpy(rows[[0, 1, 2, 3, 5], :kept].T)
    return torch.from_numpy(index[:kept])


def _iou(box: np.ndarray, others: np.ndarray, offset: int) -> np.ndarray:
    width = np.minimum(box[2], others[2]) - np.maximum(box[0], others[0]) + offset
    height = np.minimum(box[3], others[3]) - np.maximum(box[1], others[1]) + offset
    intersection = np.maximum(width, 0) * np.maximum(height, 0)
    with np.errstate(divide='ignore', invalid='ignore'):  # boxes without an area
        return intersection / (box[4] + others[4] - intersection)


def _weight(iou: np.ndarray, threshold: float, sigma: float, method: int) -> np.ndarray:
    if method == 2:
        return np.exp(-(iou * iou) / iou.dtype.type(sigma))
    weight = 1 - iou if method == 1 else np.zeros_like(iou)
    return np.where(iou >= iou.dtype.type(threshold), weight, 1)
