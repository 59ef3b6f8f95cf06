"""Shared by the operators: torchvision's kernels, and the type in which they compute."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ['promote', 'torchvision_ops']


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
    """Convert the tensors to one type, fp32 at least: torchvision's kernels need a single type."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return [tensor.to(dtype) for tensor in tensors]
