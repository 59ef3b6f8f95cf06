"""The attention maps of PSANet, from what each pixel predicts for its surroundings.

Zhao et al., PSANet: Point-wise Spatial Attention Network, ECCV 2018, Sec. 3.2.

mask (N, h_mask * w_mask, H, W): what a pixel (h, w) says of the pixel (h + i - half_h_mask,
w + j - half_w_mask). attention (N, H * W, H, W): the maps of all pixels. To collect (psa_type 0),
the first index is the pixel spoken of and the others the one that speaks; to distribute (1), the
other way round.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ['psamask_backward', 'psamask_forward']

_COLLECT = 0


def _relative(size: int, mask_size: int, half: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Index in the mask of each pixel seen from each pixel (seen, seeing), and if it is inside."""
    place = torch.arange(size, device=device)
    index = place[:, None] - place + half
    return index.clamp(0, mask_size - 1), (index >= 0) & (index < mask_size)


def psamask_forward(
    input: Tensor, output: Tensor, psa_type: int, num_: int, h_feature: int, w_feature: int,
    h_mask: int, w_mask: int, half_h_mask: int, half_w_mask: int,
) -> None:  # fmt: skip
    """The attention maps of the mask `input` into `output`."""
    i, i_inside = _relative(h_feature, h_mask, half_h_mask, input.device)
    j, j_inside = _relative(w_feature, w_mask, half_w_mask, input.device)
    h = torch.arange(h_feature, device=input.device)[:, None]
    w = torch.arange(w_feature, device=input.device)
    mask = input.reshape(num_, h_mask, w_mask, h_feature, w_feature)
    # Seen y, seen x, seeing h, seeing w.
    maps = mask[:, i[:, None, :, None], j[None, :, None, :], h, w]
    maps = maps * (i_inside[:, None, :, None] & j_inside[None, :, None, :])
    if psa_type != _COLLECT:
        maps = maps.permute(0, 3, 4, 1, 2)
    output.copy_(maps.reshape(output.shape))


def psamask_backward(
    grad_output: Tensor, grad_input: Tensor, psa_type: int, num_: int, h_feature: int,
    w_feature: int, h_mask: int, w_mask: int, half_h_mask: int, half_w_mask: int,
) -> None:  # fmt: skip
    """The gradient of the mask into `grad_input`."""
    grad = grad_output.reshape(num_, h_feature, w_feature, h_feature, w_feature)
    if psa_type != _COLLECT:
        grad = grad.permute(0, 3, 4, 1, 2)
    h = torch.arange(h_feature, device=grad.device)[:, None]
    w = torch.arange(w_feature, device=grad.device)
    y = h + torch.arange(h_mask, device=grad.device)[:, None, None, None] - half_h_mask
    x = w + torch.arange(w_mask, device=grad.device)[:, None, None] - half_w_mask
    inside = (y >= 0) & (y < h_feature) & (x >= 0) & (x < w_feature)
    y, x = y.clamp(0, h_feature - 1), x.clamp(0, w_feature - 1)
    grad_input.copy_((grad[:, y, x, h, w] * inside).reshape(grad_input.shape))
