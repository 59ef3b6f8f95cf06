"""Check by its values that what a config asks for can be built, without data and model."""

from __future__ import annotations

import copy
import functools
import logging
import multiprocessing
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import (
    LOOPS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    DefaultScope,
)
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, set_random_seed
from torch import nn

from normplug.errors import UserError

from .attempt import attempt, check_arguments, check_number
from .config_types import class_of, name_of, scope_of
from .hooks import check_hooks
from .loaders import check_evaluator, check_loader, is_infinite
from .types import unknown_types_explained

__all__ = ['check_settings']

_OURS = {'ratio_lr_mult', 'ratio_decay_mult'}
_LEVELS = ('CRITICAL', 'ERROR', 'WARNING', 'INFO', 'DEBUG')
_EPOCH_LENGTH = 100_000  # it is not known yet
_CLIPS = {'norm': nn.utils.clip_grad_norm_, 'value': nn.utils.clip_grad_value_}
# An optimizer is tried on one number: other errors may be about that.
_OPTIMIZER_REFUSALS = (TypeError, ValueError)


def check_settings(cfg: Config, phases: tuple[str, ...]) -> None:
    """Check the values of a config whose types exist.

    Args:
        cfg: the config.
        phases: of ``'train'``, ``'val'``, ``'test'``.

    Raises:
        UserError: names the config key and what it may be.
    """
    _check_environment(cfg)
    if 'train' in phases:
        _check_train_loop(cfg)
    with unknown_types_explained(cfg):
        for phase in phases:
            if isinstance(cfg.get(f'{phase}_dataloader'), dict):
                check_loader(f'{phase}_dataloader', cfg[f'{phase}_dataloader'], scope_of(cfg))
            if phase != 'train':
                check_evaluator(f'{phase}_evaluator', cfg)
        check_hooks(cfg)
    if 'train' in phases:
        with DefaultScope.overwrite_default_scope(scope_of(cfg)):
            _check_optimizer(cfg)


def _check_environment(cfg: Config) -> None:
    randomness = cfg.get('randomness') or {}
    check_arguments('randomness', randomness, set_random_seed)
    if randomness.get('seed') is not None:
        check_number('randomness.seed', randomness['seed'], 0)
    level = cfg.get('log_level', 'INFO')
    if isinstance(level, str) and not isinstance(logging.getLevelName(level), int):
        raise UserError(f'log_level must be one of {", ".join(_LEVELS)}, got {level!r}')
    processes = (cfg.get('env_cfg') or {}).get('mp_cfg') or {}
    method = processes.get('mp_start_method', 'fork')
    methods = multiprocessing.get_all_start_methods()
    if method is not None and method not in methods:
        raise UserError(
            f'env_cfg.mp_cfg.mp_start_method must be one of {", ".join(methods)}, got {method!r}'
        )
    preprocessors = {
        'data_preprocessor': cfg.get('data_preprocessor'),
        'model.data_preprocessor': (cfg.get('model') or {}).get('data_preprocessor'),
    }
    for key, preprocessor in preprocessors.items():
        if isinstance(preprocessor, dict) and 'pad_size_divisor' in preprocessor:
            check_number(f'{key}.pad_size_divisor', preprocessor['pad_size_divisor'], 1)


def _check_train_loop(cfg: Config) -> None:
    loop = cfg.train_cfg
    if not isinstance(loop, dict):
        raise UserError(
            'train_cfg must be a dict, e.g. '
            "dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=1)"
        )
    if 'type' in loop:
        kind = class_of(loop, LOOPS, scope_of(cfg))
    elif 'by_epoch' in loop or 'max_iters' in loop:  # mmengine's order
        kind = EpochBasedTrainLoop if loop.get('by_epoch') else IterBasedTrainLoop
    else:
        raise UserError(
            'train_cfg has neither type nor by_epoch; set train_cfg.type to EpochBasedTrainLoop '
            'or IterBasedTrainLoop'
        )
    if kind is not None:
        given = [] if 'type' in loop else ['by_epoch']
        check_arguments('train_cfg', loop, kind, also=given, less=['runner', 'dataloader'])
    for name in ('max_epochs', 'max_iters', 'val_interval'):
        value = loop.get(name)
        if name == 'val_interval' and type(value) in (int, float) and value:
            continue  # mmengine takes any divisor; a negative one as its amount
        if value is not None and not _counts(value):
            raise UserError(f'train_cfg.{name} must be a whole number from 1, got {value!r}')
    if kind is EpochBasedTrainLoop and is_infinite(cfg.get('train_dataloader'), scope_of(cfg)):
        raise UserError(
            'train_dataloader.sampler never ends, so that an epoch of EpochBasedTrainLoop would '
            'not either; set train_dataloader.sampler.type to DefaultSampler, or train_cfg to '
            "dict(type='IterBasedTrainLoop', max_iters=...)"
        )


def _counts(value: Any) -> bool:
    """Whether it is a whole number from 1; 1e5 is, and mmengine takes it."""
    return type(value) in (int, float) and value >= 1 and value % 1 == 0


def _check_optimizer(cfg: Config) -> None:
    """Build the optimizer and its schedulers for one number."""
    wrapper = cfg.get('optim_wrapper')
    if not isinstance(wrapper, dict) or not isinstance(wrapper.get('optimizer'), dict):
        return  # several optimizers, or a built one
    _check_clip_grad(wrapper.get('clip_grad'))
    wrapper = copy.deepcopy(dict(wrapper))
    paramwise = wrapper.pop('paramwise_cfg', None)
    constructor = wrapper.pop('constructor', 'DefaultOptimWrapperConstructor')
    if name_of(constructor) == 'DefaultOptimWrapperConstructor':
        for name in _OURS & set(paramwise or ()):
            raise UserError(
                f'optim_wrapper.paramwise_cfg.{name} is read by another constructor only: set '
                "optim_wrapper.constructor = 'NormOptimWrapperConstructor'"
            )
    arguments = {'type': constructor, 'optim_wrapper_cfg': wrapper, 'paramwise_cfg': paramwise}
    attempt(
        'optim_wrapper.paramwise_cfg',
        lambda: OPTIM_WRAPPER_CONSTRUCTORS.build(arguments),
        _OPTIMIZER_REFUSALS,
    )
    number = nn.Parameter(torch.zeros(()))
    optimizer = attempt(
        'optim_wrapper.optimizer',
        lambda: OPTIMIZERS.build({**copy.deepcopy(wrapper['optimizer']), 'params': [number]}),
        _OPTIMIZER_REFUSALS,
    )
    if optimizer is not None:
        _check_schedulers(cfg, optimizer)


def _check_clip_grad(clip: Any) -> None:
    if clip is None:
        return
    key = 'optim_wrapper.clip_grad'
    if not isinstance(clip, dict) or not set(clip) - {'type'}:
        raise UserError(f'{key} must be a dict such as dict(max_norm=35), or None; got {clip!r}')
    kind = clip.get('type', 'norm')
    if kind not in _CLIPS:
        raise UserError(f"{key}.type must be 'norm' or 'value', got {kind!r}")
    check_arguments(key, clip, _CLIPS[kind], less=['parameters'])
    limit = 'max_norm' if kind == 'norm' else 'clip_value'
    try:
        float(clip.get(limit))  # as torch does, of a text too
    except (TypeError, ValueError) as error:
        raise UserError(f'{key}.{limit} must be a number, got {clip.get(limit)!r}') from error


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
            attempt(
                f'param_scheduler.{i}' if several else 'param_scheduler',
                functools.partial(PARAM_SCHEDULERS.build, scheduler, default_args=given),
                _OPTIMIZER_REFUSALS,
            )
