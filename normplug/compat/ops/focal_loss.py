"""Sigmoid focal loss in plain torch.

Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, Eq. 5.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .kernels import promote

__all__ = ['sigmoid_focal_loss_backward', 'sigmoid_focal_loss_forward']


def _focal_inputs(input: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (N, C), whether a logit is its sample's class (N, C), weight of that class (N, 1)."""
    (x,) = promote(input)
    positive = target[:, None] == torch.arange(x.size(1), device=x.device)
    if weight.numel() == 0:
        return x, positive, x.new_ones(x.size(0), 1)
    # A sample of no class (the background of mmdet, target == C) has no class weight to take.
    if not positive.any(1).all():
        raise ValueError(
            f'sigmoid_focal_loss: class weights need every target in [0, {x.size(1)}); leave '
            '`weight` out and weight the loss itself where there are background samples.'
        )
    return x, positive, weight.to(x.dtype)[target, None]


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Focal loss of logits (N, C) for class indices (N,) into `output` (N, C), not reduced.

    Raises:
        ValueError: with class weights `weight` (C,), a target is the background, C.
    """
    x, positive, weight = _focal_inputs(input, target, weight)
    loss = torch.where(
        positive,
        -alpha * (-x).sigmoid().pow(gamma) * F.logsigmoid(x),
        (alpha - 1) * x.sigmoid().pow(gamma) * F.logsigmoid(-x),
    )
    output.copy_(loss * weight)


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """The derivative of each element of the focal loss by its logit into `grad_input` (N, C)."""
    x, positive, weight = _focal_inputs(input, target, weight)
    p, q = x.sigmoid(), (-x).sigmoid()
    grad = torch.where(
        positive,
        -alpha * q.pow(gamma) * (q - gamma * p * F.logsigmoid(x)),
        (alpha - 1) * p.pow(gamma) * (gamma * q * F.logsigmoid(-x) - p),
    )
    grad_input.copy_(grad * weight)
