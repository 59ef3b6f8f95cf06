"""What mmcv's environment report asks of its operators."""

from __future__ import annotations

__all__ = ['get_compiler_version', 'get_compiling_cuda_version']


def get_compiler_version() -> str:
    """What mmcv's environment report prints as its compiler."""
    return 'none (operators from torchvision)'


def get_compiling_cuda_version() -> str:
    """What mmcv's environment report prints as the CUDA version it was compiled with."""
    return 'none (operators from torchvision)'
