"""Is there a place for the checkpoints? Asked before training; nothing here writes."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from torch import nn

__all__ = ['check_room', 'check_writable', 'checkpoint_bytes']

# Tensors that the optimizer keeps for each parameter; two for any other, as most have.
_STATES = {'SGD': 0, 'Adagrad': 1, 'RMSprop': 1, 'Lion': 1}


def checkpoint_bytes(model: nn.Module, optimizer: dict) -> int:
    """Estimate the size of a checkpoint: weights, buffers and the optimizer's state.

    The state is taken as so many tensors for each trainable parameter: SGD none, and one more with
    momentum; Adagrad, RMSprop and Lion one; every other two, as Adam, and one more with amsgrad.

    Args:
        model: the model.
        optimizer: the optimizer's ``type`` (its bare name) and options, as in a config.
    """
    states = _STATES.get(optimizer.get('type'), 2)
    states += bool(optimizer.get('momentum')) + bool(optimizer.get('amsgrad'))
    tensors = [*model.parameters(), *model.buffers()]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return sum(t.nbytes for t in tensors) + states * sum(t.nbytes for t in trained)


def check_writable(folder: str | Path) -> None:
    """Check that ``folder``, or where it is missing the one to make it in, can be written to.

    Raises:
        NotADirectoryError: a part of the path is a file.
        PermissionError: no permission, or the file system is read-only.
    """
    place = _existing(folder)
    if not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f'{place} is a file, not a folder')
    if not os.access(
        place, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids
    ):
        raise PermissionError(
            errno.EACCES, f'{place} is not writable (no permission, or a read-only file system)'
        )


def check_room(folder: str | Path, size: int) -> None:
    """Check that ``size`` bytes are free where ``folder`` is or will be.

    Raises:
        OSError: they are not.
    """
    place = _existing(folder)
    free = shutil.disk_usage(place).free
    if free < size:
        raise OSError(
            errno.ENOSPC,
            f'{free / 1e6:.1f} MB are free in {place}, and one checkpoint needs about '
            f'{size / 1e6:.1f} MB; make room or name a folder on another disk',
        )


def _existing(folder: str | Path) -> Path:
    path = Path(folder).absolute()
    return next(p for p in (path, *path.parents) if os.path.lexists(p))
