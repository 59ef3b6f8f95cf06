"""Every check of a config before a training or a test, the quick ones first."""

from __future__ import annotations

import warnings
from typing import Literal

from mmengine.config import Config

from normplug.errors import UserError
from normplug.quiet import quiet_logger

from . import checkpoint as ckpt
from .data import check_data, check_num_classes
from .disk import check_disk
from .model import build_checked_model
from .operators import check_operators
from .packages import check_packages
from .pretrained import check_pretrained
from .settings import check_settings
from .types import check_types

__all__ = ['check_config']

_NEEDED = {
    'train': ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'),
    'test': ('model', 'test_dataloader', 'test_cfg', 'test_evaluator', 'load_from'),
}


def check_config(cfg: Config, mode: Literal['train', 'test']) -> list[str]:
    """Make all checks of this package; set ``cfg.load_from`` to what a training resumes from.

    Args:
        cfg: a config with ``work_dir`` set.
        mode: what it is for: only the data and types of that are checked.

    Returns:
        What the log should say about the data and the checkpoints.

    Raises:
        UserError: the config, its data or its checkpoint is wrong. Nothing has been written then.
    """
    lacking = [key for key in (*_NEEDED[mode], 'work_dir') if cfg.get(key) is None]
    if lacking:
        raise UserError(f'the config has no {", ".join(lacking)}, needed to {mode}')
    phases = ('train', 'val') if mode == 'train' else ('test',)
    check_types(cfg, phases)
    check_packages(cfg, phases)
    check_settings(cfg, phases)
    notes = check_data(cfg, phases)
    if mode == 'test':
        cfg.resume = False
    elif cfg.get('resume'):
        cfg.load_from, more = ckpt.find_resume(cfg.work_dir, cfg.get('load_from'))
        notes += more
    return notes + _check_checkpoints(cfg, mode, phases)


def _check_checkpoints(cfg: Config, mode: str, phases: tuple[str, ...]) -> list[str]:
    """Return what the log should say about them."""
    with quiet_logger():  # the runner builds it once more, and what is said then is logged
        model = build_checked_model(cfg)
    check_operators(model, cfg, phases)
    check_num_classes(model, cfg, phases)
    path = cfg.get('load_from')
    if mode == 'test':
        ckpt.check_strict(model, ckpt.read_checkpoint(path, 'checkpoint'), path, 'checkpoint')
        return []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')  # each layer warns; the log gets each message once
        check_disk(cfg, model)
        dataset = cfg.train_dataloader
        notes = check_pretrained(model, dataset)
        if cfg.get('resume'):
            ckpt.check_resume(model, path)
        elif path:
            notes.append(ckpt.check_load_from(model, path, dataset))
    return [*notes, *dict.fromkeys(str(warning.message) for warning in caught)]
