"""From a config to a runner, with every check of the user's input before the first write."""

from __future__ import annotations

import copy
import logging
import os.path as osp
import re
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.hooks import LoggerHook
from mmengine.logging import MMLogger
from mmengine.model import BaseTTAModel
from mmengine.registry import MODELS, RUNNERS, DefaultScope, build_from_cfg
from mmengine.runner import Runner
from torch import nn

from normplug.errors import UserError
from normplug.hooks import KalmanLinkHook, NormReportHook, SyncNormStatsHook
from normplug.models.calls import check_calls
from normplug.norms import KN
from normplug.register import NORMS

from . import checkpoint_check as ckpt
from .build_attempt import REFUSALS
from .config_types import name_of, scope_of
from .data_check import check_data, check_num_classes
from .disk_check import check_disk
from .distributed import errors_on_all_ranks, join_process_group
from .memory import CPUMemoryHook
from .operator_check import check_operators
from .package_check import check_packages, is_about_a_package, package_advice
from .settings_check import check_settings
from .type_check import check_types, keys_of_type, unknown_types_explained
from .work_dir_lock import lock_work_dir

__all__ = ['build_checked_model', 'build_runner']

_NEEDED = {
    'train': ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'),
    'test': ('model', 'test_dataloader', 'test_cfg', 'test_evaluator', 'load_from'),
}


def build_runner(cfg: Config, mode: Literal['train', 'test'] = 'train') -> Runner:
    """Check ``cfg`` and build its runner; call ``.train()`` or ``.test()`` on it.

    To train, ``cfg.resume`` and ``cfg.load_from`` mean what they mean in mmengine, but nothing to
    resume is an error. To test, ``cfg.load_from`` is the checkpoint and must fit exactly.

    With ``cfg.launcher`` every rank calls this: it initializes the process group.

    Args:
        cfg: a config with ``work_dir`` set.
        mode: what the runner is for: only its data and types are checked.

    Raises:
        UserError: the config, its data or its checkpoint is wrong, or another training runs in
            the work dir. Nothing has been written then.
    """
    notes = join_process_group(cfg)
    with errors_on_all_ranks():
        notes += _check(cfg, mode)
    if mode == 'train':
        # Its own block: the lock is a file, and so waits until the checks of all ranks passed.
        with errors_on_all_ranks():
            notes += lock_work_dir(cfg.work_dir)
    earlier = osp.exists(osp.join(cfg.work_dir, 'last_checkpoint'))

    with unknown_types_explained(cfg):
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    for note in notes:
        runner.logger.info(note)
    if mode == 'train' and earlier and not cfg.get('resume'):
        runner.logger.warning(
            f'work_dir {cfg.work_dir} holds the checkpoints of an earlier training, which this one '
            'may overwrite; --resume would continue it'
        )
    if mode == 'train' and get_device() == 'cpu':
        runner.register_hook(CPUMemoryHook())
    if mode == 'train' and not any(isinstance(hook, NormReportHook) for hook in runner.hooks):
        runner.register_hook(NormReportHook())
    has_kn = any(isinstance(module, KN) for module in runner.model.modules())
    if mode == 'train' and has_kn and not any(isinstance(h, KalmanLinkHook) for h in runner.hooks):
        runner.register_hook(KalmanLinkHook())
    if runner.distributed and not any(isinstance(h, SyncNormStatsHook) for h in runner.hooks):
        runner.register_hook(SyncNormStatsHook())
    if mode == 'test' and not is_main_process():
        # mmengine's has every rank write the metrics, into one file at the same time.
        for hook in [hook for hook in runner.hooks if isinstance(hook, LoggerHook)]:
            runner.hooks.remove(hook)
    return runner


def _check(cfg: Config, mode: str) -> list[str]:
    """Return what the log should say about the checkpoints; set ``cfg.load_from`` to resume."""
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
    with _without_infos():  # the runner builds it once more, and what is said then is logged
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
        notes = ckpt.check_pretrained(model)
        if cfg.get('resume'):
            ckpt.check_resume(model, path)
        elif path:
            notes.append(ckpt.check_load_from(model, path))
    return [*notes, *dict.fromkeys(str(warning.message) for warning in caught)]


@contextmanager
def _without_infos() -> Iterator[None]:
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(level)


def build_checked_model(cfg: Config) -> nn.Module:
    """Build the model of ``cfg``, the one inside where it is wrapped for test-time augmentation.

    A training builds it once more than needed: for the checks, and the runner seeds first.

    Raises:
        UserError: an unknown type, an option that a part of the model does not take, or a norm
            that a part calls as it cannot be called.
    """
    model_cfg = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor'):
        model_cfg.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
    scope = DefaultScope.overwrite_default_scope(scope_of(cfg))
    try:
        with unknown_types_explained(cfg), scope:
            model = MODELS.build(model_cfg)
            check_calls(model)
    except REFUSALS as error:
        named = re.match(r"norm_cfg=dict\(type='(\w+)'|(\w+)\.__init__\(\)", str(error))
        norm = named and (named[1] or named[2])
        if norm in NORMS:
            # The message of a class that others inherit names only that class.
            kinds = [name for name, kind in NORMS.items() if issubclass(kind, NORMS[norm])]
            keys = [key for kind in kinds for key in keys_of_type(cfg, kind)]
            raise UserError(f'{", ".join(keys)}: {error}') from error
        keys = keys_of_type(cfg, _type_being_built(error))
        raise UserError(
            f'model cannot be built: {type(error).__name__}: {error}; '
            f'check the key {" or ".join(keys) or "model"}'
        ) from error
    except (ImportError, RuntimeError) as error:
        if not is_about_a_package(error):
            raise
        keys = keys_of_type(cfg, _type_being_built(error))
        raise UserError(package_advice(' or '.join(keys) or 'model', '', str(error))) from error
    return model.module if isinstance(model, BaseTTAModel) else model


def _type_being_built(error: Exception) -> str:
    """Return the innermost ``type`` that a registry was building; '' if there was none."""
    name = ''
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is build_from_cfg.__code__:
            name = name_of(frame.f_locals['cfg'].get('type', ''))
    return name
