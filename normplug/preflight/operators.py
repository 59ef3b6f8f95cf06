"""Check that the model needs no compiled operator of mmcv that is missing here."""

from __future__ import annotations

import importlib
import sys

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import MODELS
from torch import nn

from normplug.compat.mmcv_ext import ADVICE
from normplug.compat.needed_operators import missing_operators
from normplug.errors import UserError

from .config_types import dicts_in, name_of
from .types import keys_of_type

__all__ = ['check_operators']

# A class of mmaction2 that calls a function of mmcv.ops → the layer there that does.
_CALLED = {'ResNetTIN': 'TINShift'}


def check_operators(model: nn.Module, cfg: Config, phases: tuple[str, ...]) -> None:
    """Refuse what would fail only when it is first run, which may be in a first validation.

    Looks at the layers of mmcv that the model has, and at the kinds of NMS that its config names.

    Args:
        model: Built from `cfg`.
        cfg: The config.
        phases: of ``'train'``, ``'val'``, ``'test'``.

    Raises:
        UserError: names the config key and the operators.
    """
    device = get_device()
    model.train('train' in phases)  # as the loop puts it: some layers stay in evaluation
    lacking = {}
    for path, layer in model.named_modules():
        used = _used_by(layer)
        if used is not None:
            operators = missing_operators(used, device, layer.training)
            if operators:
                lacking[_keys_of_layer(model, path, cfg), type(layer).__name__] = operators
    nms = vars(sys.modules['mmcv.ops.nms']) if 'mmcv.ops.nms' in sys.modules else {}
    validates = 'test' in phases or cfg.get('val_cfg') is not None
    for key, part, _ in dicts_in(cfg.model, 'model'):
        *above, last = key.split('.')
        if last.endswith(('nms', 'nms_cfg')) and (validates or 'test_cfg' not in above):
            kind = part.get('type')  # a function of mmcv.ops.nms, or its name
            operators = missing_operators(nms.get(kind) if isinstance(kind, str) else kind, device)
            if operators:
                lacking[f'{key}.type', name_of(kind)] = operators
    if lacking:
        lines = [
            f'{key}: {name} needs {", ".join(sorted(operators))} of mmcv.ops'
            for (key, name), operators in lacking.items()
        ]
        raise UserError('\n'.join([*lines, f'These compiled operators are missing: {ADVICE}']))


def _used_by(layer: nn.Module) -> type | None:
    """The class of mmcv.ops that a layer is, or whose function it calls; None if there is none."""
    kinds = type(layer).__mro__
    if any(kind.__module__.startswith('mmcv.ops.') for kind in kinds):
        return type(layer)
    of_mmaction = (kind for kind in kinds if kind.__module__.startswith('mmaction.'))
    called = next((_CALLED[k.__name__] for k in of_mmaction if k.__name__ in _CALLED), None)
    return called and getattr(importlib.import_module('mmcv.ops'), called)


def _keys_of_layer(model: nn.Module, path: str, cfg: Config) -> str:
    """Config keys of the layer, or else of the innermost part of the model that has it."""
    known = {kind: name for name, kind in MODELS.module_dict.items()}
    parts = path.split('.')
    for end in range(len(parts), 0, -1):
        kind = type(model.get_submodule('.'.join(parts[:end])))
        for name in (kind.__name__, known.get(kind)):
            keys = keys_of_type(cfg, name)
            if keys:
                return ', '.join(keys)
    return f'model ({path})'
