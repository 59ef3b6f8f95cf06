"""Can the dataloaders, the optimizer and the schedules be built? Asked without building them."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import (
    HOOKS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    DefaultScope,
)
from mmengine.runner import Runner
from torch import nn

from .config import scope_of
from .errors import UserError

__all__ = ['check_settings']

_OURS = {'ratio_lr_mult', 'ratio_decay_mult'}
_EPOCH_LENGTH = 100_000  # it is not known yet


def check_settings(cfg: Config, phases: tuple[str, ...]) -> None:
    """Check the values of a config whose types exist.

    Args:
        cfg: the config.
        phases: of ``'train'``, ``'val'``, ``'test'``.

    Raises:
        UserError: names the config key and what it may be.
    """
    for phase in phases:
        if isinstance(cfg.get(f'{phase}_dataloader'), dict):
            _check_loader(f'{phase}_dataloader', cfg[f'{phase}_dataloader'])
    for name, hook in (cfg.get('default_hooks') or {}).items():
        _check_hook(f'default_hooks.{name}', hook, scope_of(cfg))
    for i, hook in enumerate(cfg.get('custom_hooks') or ()):
        _check_hook(f'custom_hooks.{i}', hook, scope_of(cfg))
    if 'train' in phases:
        with DefaultScope.overwrite_default_scope(scope_of(cfg)):
            _check_optimizer(cfg)


def _check_loader(key: str, loader: dict) -> None:
    for name, least in (('batch_size', 1), ('num_workers', 0), ('prefetch_factor', 1)):
        value = loader.get(name)
        if value is not None and not (type(value) is int and value >= least):
            raise UserError(f'{key}.{name} must be a whole number from {least}, got {value!r}')
    workers = loader.get('num_workers', 0)
    for name in ('persistent_workers', 'prefetch_factor'):
        if loader.get(name) and workers == 0:
            raise UserError(
                f'{key}.{name}={loader[name]!r} needs {key}.num_workers of 1 or more; '
                f'set {name} to {False if name == "persistent_workers" else None}'
            )


def _check_hook(key: str, config: Any, scope: str) -> None:
    """Does its class take these arguments? (Some hooks cannot be built before the runner is.)"""
    kind = config.get('type') if isinstance(config, dict) else None
    if isinstance(kind, str):
        with HOOKS.switch_scope_and_registry(config.get('_scope_', scope)) as found:
            kind = found.get(kind)
    if not inspect.isclass(kind):
        return
    parameters = dict(inspect.signature(kind).parameters)
    if issubclass(kind, CheckpointHook):
        # It passes the rest on, which fails only at the first checkpoint.
        parameters.pop('kwargs', None)
        parameters |= inspect.signature(Runner.save_checkpoint).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in config:
        if name not in (*parameters, 'type', 'priority', '_scope_'):
            raise UserError(
                f'{key}.{name}: {kind.__name__} has no such argument; it takes '
                f'{", ".join(name for name in parameters if name != "self") or "none"}'
            )


def _check_optimizer(cfg: Config) -> None:
    """Build the optimizer and its schedulers for one number."""
    wrapper = cfg.get('optim_wrapper')
    if not isinstance(wrapper, dict) or not isinstance(wrapper.get('optimizer'), dict):
        return  # several optimizers, or a built one
    wrapper = copy.deepcopy(dict(wrapper))
    paramwise = wrapper.pop('paramwise_cfg', None)
    constructor = wrapper.pop('constructor', 'DefaultOptimWrapperConstructor')
    if constructor == 'DefaultOptimWrapperConstructor':
        for name in _OURS & set(paramwise or ()):
            raise UserError(
                f'optim_wrapper.paramwise_cfg.{name} is read by another constructor only: set '
                "optim_wrapper.constructor = 'NormOptimWrapperConstructor'"
            )
    arguments = {'type': constructor, 'optim_wrapper_cfg': wrapper, 'paramwise_cfg': paramwise}
    _try('optim_wrapper.paramwise_cfg', lambda: OPTIM_WRAPPER_CONSTRUCTORS.build(arguments))
    number = nn.Parameter(torch.zeros(()))
    optimizer = _try(
        'optim_wrapper.optimizer',
        lambda: OPTIMIZERS.build({**copy.deepcopy(wrapper['optimizer']), 'params': [number]}),
    )
    if optimizer is not None:
        _check_schedulers(cfg, optimizer)


def _check_schedulers(cfg: Config, optimizer: torch.optim.Optimizer) -> None:
    schedulers = cfg.get('param_scheduler') or []
    several = isinstance(schedulers, (list, tuple))
    loop = cfg.get('train_cfg') or {}
    epochs = loop.get('max_epochs') or 1
    iters = loop.get('max_iters') or epochs * _EPOCH_LENGTH
    for i, scheduler in enumerate(schedulers if several else [schedulers]):
        if isinstance(scheduler, dict) and 'type' in scheduler:
            scheduler = copy.deepcopy(scheduler)
            # As mmengine's runner does.
            scheduler.setdefault('end', epochs if scheduler.get('by_epoch', True) else iters)
            given = {'optimizer': optimizer, 'epoch_length': _EPOCH_LENGTH}
            _try(
                f'param_scheduler.{i}' if several else 'param_scheduler',
                functools.partial(PARAM_SCHEDULERS.build, scheduler, default_args=given),
            )


def _try(key: str, build: Callable[[], Any]) -> Any:
    """Return what ``build`` returns; None if it fails for want of the real training."""
    try:
        return build()
    except (TypeError, ValueError) as error:
        text = str(error)
        raise UserError(text if text.startswith(key) else f'{key}: {text}') from error
    except Exception:
        return None
