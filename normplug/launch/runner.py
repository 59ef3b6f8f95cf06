"""Check a config and build its runner; every check comes before the first write."""

from __future__ import annotations

import os.path as osp
from typing import Literal

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.hooks import LoggerHook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from normplug.errors import UserError
from normplug.hooks import (
    BRNScheduleHook,
    KalmanLinkHook,
    NormMemoryHook,
    NormReportHook,
    PopulationHook,
    SyncNormStatsHook,
    WhiteningHook,
)
from normplug.norms import BRN, CBN, KN, PN, BaseNorm
from normplug.preflight.check import check_config
from normplug.preflight.types import unknown_types_explained
from normplug.whitened import whitened_layers

from .distributed import errors_on_all_ranks, join_process_group
from .memory import CPUMemoryHook
from .work_dir_lock import lock_work_dir

__all__ = ['build_runner']


def build_runner(cfg: Config, mode: Literal['train', 'test'] = 'train') -> Runner:
    """Check ``cfg`` and build its runner; call ``.train()`` or ``.test()`` on it.

    To train, ``cfg.resume`` and ``cfg.load_from`` mean what they mean in mmengine, but it is an
    error if there is nothing to resume. To test, ``cfg.load_from`` is the checkpoint and must fit
    exactly.

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
        notes += check_config(cfg, mode)
    if mode == 'train':
        # The lock is a file: it is written only after the checks of all ranks passed.
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
    to_link = any(isinstance(module, (KN, CBN)) for module in runner.model.modules())
    if mode == 'train' and to_link and not any(isinstance(h, KalmanLinkHook) for h in runner.hooks):
        runner.register_hook(KalmanLinkHook())
    if (
        mode == 'train'
        and any(isinstance(m, BaseNorm) and m.remembers for m in runner.model.modules())
        and not any(isinstance(hook, NormMemoryHook) for hook in runner.hooks)
    ):
        runner.register_hook(NormMemoryHook())
    if mode == 'train':
        _check_whitening(runner)
        _check_population(runner)
        _check_bounds(runner)
    if runner.distributed and not any(isinstance(h, SyncNormStatsHook) for h in runner.hooks):
        runner.register_hook(SyncNormStatsHook())
    if mode == 'test' and not is_main_process():
        # mmengine makes every rank write the metrics, into one file at the same time.
        for hook in [hook for hook in runner.hooks if isinstance(hook, LoggerHook)]:
            runner.hooks.remove(hook)
    return runner


def _check_whitening(runner: Runner) -> None:
    whitened = list(whitened_layers(runner.model))
    if whitened and not any(isinstance(hook, WhiteningHook) for hook in runner.hooks):
        raise UserError(
            f'the model has {len(whitened)} whitened layers that train ({whitened[0]} first), '
            "which stay plain ones without their hook: add dict(type='WhiteningHook', "
            'interval=...) to custom_hooks, or remove their conv_cfg'
        )


def _check_population(runner: Runner) -> None:
    layers = runner.model.named_modules()
    waiting = [name for name, m in layers if isinstance(m, PN) and m.needs_estimates]
    if waiting and not any(isinstance(hook, PopulationHook) for hook in runner.hooks):
        raise UserError(
            f"the model has {len(waiting)} PN layers of population='estimated' ({waiting[0]} "
            "first), and nothing estimates it: add dict(type='PopulationHook') to custom_hooks, "
            "or use population='running'"
        )


def _check_bounds(runner: Runner) -> None:
    layers = runner.model.named_modules()
    norms = [(name, m) for name, m in layers if isinstance(m, BRN) and not m.frozen]
    fixed = [name for name, norm in norms if norm.starts_as_batch_norm()]
    if fixed and not any(isinstance(hook, BRNScheduleHook) for hook in runner.hooks):
        raise UserError(
            f'the model has {len(fixed)} BRN layers ({fixed[0]} first) that stay batch norms '
            "without their hook: add dict(type='BRNScheduleHook') to custom_hooks, or set r_max "
            'and d_max in norm_cfg for bounds that do not move'
        )
