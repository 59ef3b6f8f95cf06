"""Check that the hooks take the arguments that the config gives them."""

from __future__ import annotations

import copy
import inspect
from typing import Any

from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS, DefaultScope
from mmengine.runner import Runner
from mmengine.runner.priority import Priority, get_priority

from normplug.errors import UserError

from .attempt import attempt, check_arguments, check_number
from .config_types import class_of, scope_of

__all__ = ['check_hooks']

# In their hooks, an interval is a number of iterations or epochs.
_COUNTING = {'mmengine', 'mmdet', 'mmseg', 'mmpretrain', 'mmaction', 'normplug'}


def check_hooks(cfg: Config) -> None:
    """Check the names and values of the hooks' arguments.

    Raises:
        UserError: names the config key.
    """
    for name, hook in (cfg.get('default_hooks') or {}).items():
        _check_hook(f'default_hooks.{name}', hook, scope_of(cfg))
    for i, hook in enumerate(cfg.get('custom_hooks') or ()):
        _check_hook(f'custom_hooks.{i}', hook, scope_of(cfg))


def _check_hook(key: str, config: Any, scope: str | None) -> None:
    kind = class_of(config, HOOKS, scope)
    if kind is None:
        return
    if 'priority' in config:
        try:
            get_priority(config['priority'])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f'{key}.priority must be a number from 0 to 100 or one of '
                f'{", ".join(Priority.__members__)}, got {config["priority"]!r}'
            ) from error
    if issubclass(kind, CheckpointHook):
        _check_checkpoint_hook(key, config, kind)
    else:
        check_arguments(key, config, kind, also=['priority'])
    interval = config.get('interval')
    never = interval == -1  # mmengine's way to say so
    if interval is not None and not never and kind.__module__.split('.')[0] in _COUNTING:
        check_number(f'{key}.interval', interval, 1)
    # Visualization needs the runner's visualizer; hooks of others may do anything when built.
    module = kind.__module__
    if module.startswith(('mmengine.hooks.', 'normplug.')) and not any(
        word in module for word in ('visualization', 'profiler', 'test_time_aug')
    ):
        arguments = copy.deepcopy({k: v for k, v in config.items() if k != 'priority'})
        with DefaultScope.overwrite_default_scope(scope):
            attempt(key, lambda: HOOKS.build(arguments))


def _check_checkpoint_hook(key: str, config: dict, kind: type) -> None:
    # It passes the rest on, which fails only at the first checkpoint.
    passed_on = inspect.signature(Runner.save_checkpoint).parameters
    own = [
        p.name for p in inspect.signature(kind).parameters.values() if p.kind is not p.VAR_KEYWORD
    ]
    names = list(dict.fromkeys([*own, *passed_on]))
    for name in config:
        if name not in (*names, 'type', 'priority', '_scope_'):
            raise UserError(
                f'{key}.{name}: {kind.__name__} has no such argument; it takes '
                f'{", ".join(name for name in names if name != "self")}'
            )
    kept = config.get('max_keep_ckpts', -1)
    if not (type(kept) is int and (kept == -1 or kept >= 1)):
        raise UserError(
            f'{key}.max_keep_ckpts must be a whole number from 1, or -1 for all, got {kept!r}'
        )
    rules = config.get('rule')
    for rule in rules if isinstance(rules, (list, tuple)) else [rules]:
        if rule not in ('greater', 'less', None):
            raise UserError(f"{key}.rule must be 'greater' or 'less', got {rule!r}")
