"""mmcv's compiled operators, computed by torchvision's kernels (and focal loss by plain torch).

Every function has the name, the argument order and the keywords by which `mmcv/ops/*.py` calls the
compiled one, and, like it, writes its result into the buffers it is given.

Kernels run in fp32 at least, whatever the input type: fp16 cannot even hold a box coordinate
beyond 2048 exactly. The result is rounded to the type of the buffer.

Shapes: boxes (N, 4) as x1, y1, x2, y2; rois (K, 5) with the index of the sample in front.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# The names that `mmcv._ext` gets; `promote` and `torchvision_ops` are for this package.
__all__ = [
    'bbox_overlaps',
    'get_compiler_version',
    'get_compiling_cuda_version',
    'nms',
    'roi_align_backward',
    'roi_align_forward',
    'roi_pool_backward',
    'roi_pool_forward',
    'sigmoid_focal_loss_backward',
    'sigmoid_focal_loss_forward',
]


def torchvision_ops():
    """Return the namespace `torch.ops.torchvision`.

    Raises:
        RuntimeError: torchvision is missing, or was built for another torch.
    """
    try:
        import torchvision  # noqa: F401  (importing it registers the operators)

        torch.ops.torchvision.nms  # noqa: B018  (absent if torchvision's library did not load)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise RuntimeError(
            'mmcv has no compiled operators here and those of torchvision cannot be used: '
            f'{error}. Install the torchvision that belongs to torch {torch.__version__}; '
            '`python -m normplug` prints the command.'
        ) from error
    return torch.ops.torchvision


def promote(*tensors: Tensor) -> list[Tensor]:
    """Bring the tensors to one type, fp32 at least: torchvision's kernels ask for a single type."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return [tensor.to(dtype) for tensor in tensors]


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
    """Focal loss of logits (N, C) for class indices (N,) into `output` (N, C), not reduced."""
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


def get_compiler_version() -> str:
    """What mmcv's environment report prints as its compiler."""
    return 'none (operators from torchvision)'


def get_compiling_cuda_version() -> str:
    """What mmcv's environment report prints as the CUDA version it was compiled with."""
    return 'none (operators from torchvision)'
