"""Suppression of overlapping boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from .kernels import promote, torchvision_ops

__all__ = ['bbox_overlaps', 'nms', 'nms_match']


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the kept boxes, by falling score; `offset` is added to widths and heights."""
    boxes, scores = promote(boxes, scores)
    if offset:
        # A width of x2 - x1 + offset is the width of the box that ends `offset` later; it holds
        # for intersections too.
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] + offset), dim=1)
    return torchvision_ops().nms(boxes, scores, iou_threshold)


def bbox_overlaps(
    bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int
) -> None:
    """IoU (mode 0) or intersection over the first area (mode 1), into `ious`: (N,) or (N, M)."""
    first, second = promote(bboxes1, bboxes2)
    if not aligned:
        first = first[:, None]
    top_left = torch.maximum(first[..., :2], second[..., :2])
    bottom_right = torch.minimum(first[..., 2:], second[..., 2:])
    intersection = (bottom_right - top_left + offset).clamp(min=0).prod(-1)
    union = (first[..., 2:] - first[..., :2] + offset).prod(-1)
    if mode == 0:
        union = union + (second[..., 2:] - second[..., :2] + offset).prod(-1) - intersection
    ious.copy_(intersection / union)


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of the boxes (N, 5) with scores: each kept one, then those that it suppressed.

    Groups, and boxes in a group, come by falling score. Unlike in `nms`, an IoU of exactly
    `iou_threshold` suppresses.
    """
    (dets,) = promote(dets)
    order = dets[:, 4].sort(descending=True)[1]
    groups = []
    while len(order):
        boxes = dets[order, :4]
        ious = boxes.new_empty(len(order) - 1)
        bbox_overlaps(boxes[:1].expand_as(boxes[1:]), boxes[1:], ious, 0, True, 0)
        suppressed = ious >= iou_threshold
        groups.append([int(order[0]), *order[1:][suppressed].tolist()])
        order = order[1:][~suppressed]
    return groups
