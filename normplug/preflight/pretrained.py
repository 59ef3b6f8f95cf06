"""Check the checkpoints that a model's parts start from, before anything is written."""

from __future__ import annotations

import copy
import logging

import torch
from mmengine.model import BaseModule
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import nn

from normplug.checkpoint_file import check_exists, few, whitened_layers_in
from normplug.digits_record import other_digits
from normplug.errors import UserError
from normplug.quiet import quiet_logger

from .checkpoint import LoadReport, compare, read_checkpoint, state_dict_of

__all__ = ['check_pretrained']


def check_pretrained(model: nn.Module, dataset: object = None) -> list[str]:
    """Check every ``init_cfg`` that names a local checkpoint, and return texts for the log.

    Its type is Pretrained, or one that converts the file, as ReleasedPretrained does. Of
    mmaction2's backbones it checks ``pretrained`` too: what fills those that inflate, and of the
    others, which fill themselves, that it can be read.

    Args:
        model: to fill.
        dataset: config of what the training reads.

    Raises:
        UserError: a file is missing or broken, or none of its keys fit; mmengine would go on
            from random weights with a warning.
    """
    texts = []
    for name, module in model.named_modules():
        pretrained = getattr(module, 'pretrained', None)
        of_mmaction = type(module).__module__.startswith('mmaction.')
        inflates = of_mmaction and hasattr(module, '_inflate_weights')  # ResNet3d's, not Swin's
        if isinstance(pretrained, str) and of_mmaction and '://' not in pretrained:
            key = '.'.join(filter(None, ('model', name, 'pretrained')))
            told = other_digits(_read_plain(pretrained, key).get('meta'), dataset)
            if inflates:
                texts.append(_inflated(module, pretrained, key, told))
        init_cfgs = getattr(module, 'init_cfg', None) or []
        for init_cfg in [init_cfgs] if isinstance(init_cfgs, dict) else init_cfgs:
            path = init_cfg.get('checkpoint')
            if path is None or '://' in path:
                continue
            key = '.'.join(filter(None, ('model', name, 'init_cfg.checkpoint')))
            kind = init_cfg.get('type')
            kind = WEIGHT_INITIALIZERS.get(kind) if isinstance(kind, str) else kind
            if inflates:
                check_exists(path, key)
                released = hasattr(kind, 'convert')  # such files leave nothing out
                told = ''
                if not released:
                    told = other_digits(_read_plain(path, key).get('meta'), dataset)
                texts.append(_inflated(module, path, key, told, must_fill=released))
                continue
            if hasattr(kind, 'convert'):
                texts.append(_converted(module, init_cfg, key))
                continue
            if type(module).init_weights is not BaseModule.init_weights:
                check_exists(path, key)
                continue  # the class reads the file in its own way, as Swin does
            prefix = init_cfg.get('prefix') or ''
            prefix += '.' if prefix and not prefix.endswith('.') else ''
            checkpoint = read_checkpoint(path, key)
            report = compare(module, checkpoint, prefix, f'{key}: {path}')
            if not report.used:
                raise UserError(
                    f'{key}: no key of {path} fits{f" below prefix {prefix}" if prefix else ""}. '
                    f'Its keys: {few(state_dict_of(checkpoint))}; wanted: '
                    f'{few(module.state_dict())}. Set init_cfg.prefix to the part of '
                    "the checkpoint, e.g. prefix='backbone.'"
                )
            told = other_digits(checkpoint.get('meta'), dataset)
            texts.append(report.text(f'{key} {path}', told))
    return texts


def _read_plain(path: str, key: str) -> dict:
    checkpoint = read_checkpoint(path, key)
    names = whitened_layers_in(state_dict_of(checkpoint))
    if names:
        raise UserError(
            f'{key}: {path} has whitened weights ({few(names)}), which mmaction2 would copy as if '
            'they were plain: name the checkpoint of a network without conv_cfg'
        )
    return checkpoint


def _inflated(
    module: nn.Module, path: str, key: str, told: str = '', must_fill: bool = False
) -> str:
    """Return the report of a network of mmaction2 that fills itself, with what stays as it is."""
    twin = copy.deepcopy(module)
    floats = {n: t for n, t in twin.state_dict().items() if t.is_floating_point()}
    for value in floats.values():
        value.fill_(torch.nan)  # what is NaN afterwards was not filled
    try:
        with quiet_logger(logging.ERROR):
            twin.init_weights()
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f'{key}: {error}') from error
    state = twin.state_dict()
    missing = tuple(name for name in floats if state[name].isnan().any())
    used = tuple(name for name in floats if name not in missing)
    if not used or (missing and must_fill):
        raise UserError(
            f'{key}: {path} leaves {len(missing)} of {len(floats)} tensors of the network as they '
            f'are ({few(missing)}): it must be of a 2D ResNet of the same depth, width and norm_cfg'
        )
    return LoadReport(used, missing, (), {}).text(f'{key} {path}', told)


def _converted(module: nn.Module, init_cfg: dict, key: str) -> str:
    """Return the report of an initializer that can tell what it would load."""
    try:
        conversion = WEIGHT_INITIALIZERS.build(dict(init_cfg)).convert(
            module, key.removesuffix('.init_cfg.checkpoint')
        )
    except (TypeError, ValueError) as error:
        raise UserError(f'{key}: {error}') from error
    return f'{key} {conversion.report}'
