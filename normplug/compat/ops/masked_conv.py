"""The two halves of a convolution at chosen places: gather samples, and write results back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ['masked_col2im_forward', 'masked_im2col_forward']


def masked_im2col_forward(
    im: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, col: Tensor,
    kernel_h: int, kernel_w: int, pad_h: int, pad_w: int,
) -> None:  # fmt: skip
    """The samples of `im` (1, C, H, W) under the kernel at M places: `col` (C * kh * kw, M)."""
    # A kernel may reach farther than the padding at the lower and right end; there are zeros too.
    padded = F.pad(im[0], (pad_w, pad_w + kernel_w, pad_h, pad_h + kernel_h))
    row = mask_h_idx + torch.arange(kernel_h, device=im.device)[:, None, None]
    column = mask_w_idx + torch.arange(kernel_w, device=im.device)[:, None]
    col.copy_(padded[:, row, column].view_as(col))


def masked_col2im_forward(
    col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor,
    height: int, width: int, channels: int,
) -> None:  # fmt: skip
    """The columns (C, M) at their places in `im` (1, C, H, W), the rest of which is left alone."""
    im[0, :, mask_h_idx, mask_w_idx] = col.to(im.dtype)
