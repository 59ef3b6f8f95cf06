"""Check that there is a place for the checkpoints, before anything is written."""

from __future__ import annotations

import os.path as osp

from mmengine.config import Config
from torch import nn

from normplug.errors import UserError
from normplug.files import check_room, check_writable
from normplug.resume.size import checkpoint_bytes

from .config_types import name_of

__all__ = ['check_disk']


def check_disk(cfg: Config, model: nn.Module) -> None:
    """Check that a checkpoint of a training of ``model`` can be written where it will be.

    Raises:
        UserError: the folder is not writable, or has less free space than a checkpoint needs (see
            :func:`normplug.resume.size.checkpoint_bytes`).
    """
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    folder, key = hook.get('out_dir'), 'default_hooks.checkpoint.out_dir'
    if folder is None:
        folder, key = cfg.work_dir, '--work-dir'
    if '://' in str(folder):
        return
    folder = osp.expanduser(folder)
    optimizer = dict(cfg.optim_wrapper.get('optimizer') or {})
    optimizer['type'] = name_of(optimizer.get('type'))
    try:
        check_writable(folder)
        check_room(folder, checkpoint_bytes(model, optimizer))
    except OSError as error:
        raise UserError(f'{key}: no place for checkpoints in {folder}: {error.strerror}') from error
