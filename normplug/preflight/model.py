"""Build the model of a config, and explain why if that fails."""

from __future__ import annotations

import copy
import re
import traceback

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, build_from_cfg
from torch import nn

from normplug.errors import UserError
from normplug.models.calls import check_calls
from normplug.models.wrappers import unwrapped
from normplug.register import NORMS

from .attempt import REFUSALS
from .config_types import name_of, scope_of
from .packages import is_about_a_package, package_advice
from .types import keys_of_type, unknown_types_explained

__all__ = ['build_checked_model']


def build_checked_model(cfg: Config) -> nn.Module:
    """Build the model of ``cfg``, the one inside where it is wrapped for test-time augmentation.

    A training builds a second one: this one is for the checks, and the runner seeds before its own.

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
        # The message of a class that others inherit names only that class.
        kinds = [name for name, kind in NORMS.items() if norm in _our_bases(kind)]
        keys = [key for kind in kinds for key in keys_of_type(cfg, kind)]
        parts = keys_of_type(cfg, _type_being_built(error))
        # Options that do not fit one part may fit another.
        below = [key for key in keys if any(key.startswith(f'{part}.') for part in parts)]
        if keys:
            raise UserError(f'{", ".join(below or keys)}: {error}') from error
        raise UserError(
            f'model cannot be built: {type(error).__name__}: {error}; '
            f'check the key {" or ".join(parts) or "model"}'
        ) from error
    except (ImportError, RuntimeError) as error:
        if not is_about_a_package(error):
            raise
        keys = keys_of_type(cfg, _type_being_built(error))
        raise UserError(package_advice(' or '.join(keys) or 'model', '', str(error))) from error
    return unwrapped(model)


def _our_bases(kind: type) -> set[str]:
    """Return the names of a norm type and of the classes of this package that it inherits."""
    return {base.__name__ for base in kind.__mro__ if base.__module__.startswith('normplug.')}


def _type_being_built(error: Exception) -> str:
    """Return the innermost ``type`` that a registry was building; '' if there was none."""
    name = ''
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is build_from_cfg.__code__:
            name = name_of(frame.f_locals['cfg'].get('type', ''))
    return name
