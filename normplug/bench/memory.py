"""Measure the memory kept for backward, and the peak on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

__all__ = ['kept_bytes', 'peak_bytes']


def kept_bytes(forward: Callable[[], Any], module: nn.Module) -> int:
    """Return the bytes of the distinct storages that autograd saves in ``forward``.

    The parameters of ``module`` are not counted, because they exist anyway.
    """
    weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    storages = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage  # held, so that no other takes its place
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(storage.nbytes() for storage in storages.values())


def peak_bytes(step: Callable[[], Any], device: str) -> int | None:
    """Return the peak of additional bytes on the GPU during ``step``; None on the CPU."""
    if device == 'cpu':
        return None
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
