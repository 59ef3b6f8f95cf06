"""Log the memory of a training on the CPU."""

from __future__ import annotations

import resource
import sys

from mmengine.hooks import Hook
from mmengine.runner import Runner

__all__ = ['CPUMemoryHook']


class CPUMemoryHook(Hook):
    """Log the main process's peak resident memory in MB as ``memory``.

    mmengine logs ``memory`` of GPUs only. The dataloader's worker processes do not count.
    """

    priority = 'NORMAL'  # before LoggerHook

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Record the peak so far."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # Linux counts in KiB, macOS in bytes.
        peak //= 1024**2 if sys.platform == 'darwin' else 1024
        runner.message_hub.update_scalar('train/memory', int(peak))
