"""Check that a checkpoint belongs to the model, before anything is written."""

from __future__ import annotations

import copy
import logging
import re
from collections import OrderedDict
from dataclasses import dataclass

import torch
from mmengine.model import BaseModule
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import nn

from normplug.checkpoint_file import check_exists, few, load, whitened_layers_in
from normplug.digits_record import other_digits
from normplug.errors import UserError
from normplug.quiet import quiet_logger
from normplug.resume.find import last_whole_checkpoint
from normplug.whitened import check_coordinates

__all__ = [
    'LoadReport',
    'check_load_from',
    'check_pretrained',
    'check_resume',
    'check_strict',
    'compare',
    'find_resume',
    'read_checkpoint',
]


@dataclass(frozen=True)
class LoadReport:
    """Which of a model's tensors a checkpoint fills; all fields hold state-dict keys.

    ``mismatched`` maps a key to a text with its two shapes.
    """

    used: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: dict[str, str]

    def differences(self) -> list[str]:
        """Return one line for each kind of difference, with a few keys of it."""
        kinds = {
            'missing in the checkpoint': self.missing,
            'unknown to the model': self.unexpected,
            'of another shape': tuple(self.mismatched.values()),
        }
        return [f'{len(keys)} {kind}: {few(keys)}' for kind, keys in kinds.items() if keys]


_MISMATCH = re.compile(
    r'size mismatch for (\S+): copying a param with shape torch\.Size\(\[(.*?)\]\) '
    r'from checkpoint, the shape in current model is torch\.Size\(\[(.*?)\]\)'
)


def read_checkpoint(path: str, asked_by: str) -> dict:
    """Read the checkpoint at ``path`` (a file or whatever mmengine can load) to the CPU.

    Args:
        path: the file.
        asked_by: the option or config key that names it, for the message.

    Raises:
        UserError: no such file, or it cannot be read, or it holds no state dict, or NaN in it.
    """
    checkpoint = load(path, asked_by)
    if not isinstance(checkpoint, dict) or not _holds_tensors(_state_dict(checkpoint)):
        keys = f' (only {few(map(str, checkpoint))})' if isinstance(checkpoint, dict) else ''
        raise UserError(
            f'{asked_by}: {path} holds no state_dict{keys}; save the weights as '
            "torch.save({'state_dict': model.state_dict()}, ...)"
        )
    # Infinity may be meant, as in the mask of an attention; NaN never is.
    broken = [name for name, value in _state_dict(checkpoint).items() if _has_nan(value)]
    if broken:
        raise UserError(
            f'{asked_by}: {path} has NaN in {len(broken)} tensors, {broken[0]} first: the training '
            'that wrote it had diverged; take an earlier checkpoint'
        )
    return checkpoint


def _has_nan(value: object) -> bool:
    return (
        isinstance(value, torch.Tensor) and value.is_floating_point() and bool(value.isnan().any())
    )


def compare(
    model: nn.Module, checkpoint: dict, prefix: str = '', whose: str = 'the checkpoint'
) -> LoadReport:
    """Load ``checkpoint`` into ``model`` and report what fitted.

    This changes the model: give a spare one. It really loads, because layers may rename or
    reshape released tensors in load hooks.

    Args:
        model: the model.
        checkpoint: a checkpoint, or a state dict alone.
        prefix: compare the part of the checkpoint below this prefix, without the prefix.
        whose: what it is, for the message.

    Raises:
        CheckpointError: it has the weights of whitened layers where the model has others.
    """
    source = _state_dict(checkpoint)
    state = OrderedDict((re.sub(r'^module\.', '', key), value) for key, value in source.items())
    if prefix:
        state = {key[len(prefix) :]: val for key, val in state.items() if key.startswith(prefix)}
    else:
        state._metadata = getattr(source, '_metadata', OrderedDict())  # versions of the layers
    check_coordinates(model, state, whose)
    found = []
    handle = model.register_load_state_dict_post_hook(
        lambda _, keys: found.append((tuple(keys.missing_keys), tuple(keys.unexpected_keys)))
    )
    mismatched = {}
    try:
        model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        if not found:  # it is not the list of differences that loading ends with
            raise
        for line in str(error).splitlines()[1:]:
            named = _MISMATCH.search(line)
            key = named[1] if named else line.strip()
            mismatched[key] = f'{key} ({named[2]}; model: {named[3]})' if named else key
    finally:
        handle.remove()
    missing, unexpected = found[0]
    # As in mmengine: old checkpoints do not have BN's counter and load all the same.
    missing = tuple(key for key in missing if not key.endswith('num_batches_tracked'))
    used = tuple(
        key
        for key in model.state_dict()
        if key not in mismatched and key not in missing and not key.endswith('num_batches_tracked')
    )
    return LoadReport(used, missing, unexpected, mismatched)


def check_strict(model: nn.Module, checkpoint: dict, path: str, asked_by: str) -> None:
    """Raise UserError unless ``checkpoint`` has exactly the tensors of ``model``."""
    differences = compare(model, checkpoint, whose=f'{asked_by}: {path}').differences()
    if differences:
        raise UserError(
            '\n  '.join([f'{asked_by}: {path} is of another model than the config:', *differences])
            + '\nUse the config that the checkpoint was trained with.'
        )


def find_resume(work_dir: str, load_from: str | None) -> tuple[str, list[str]]:
    """Find the checkpoint to resume from: ``load_from``, else the last whole one in ``work_dir``.

    Returns:
        Its path, and lines for the log if ``last_checkpoint`` names another.

    Raises:
        UserError: there is none.
    """
    if load_from is not None:
        return load_from, []
    path, reason = last_whole_checkpoint(work_dir)
    if path is None:
        raise UserError(
            f'--resume: work_dir {work_dir} has no checkpoint to resume ({reason}, and no other '
            'loads); start without --resume, or name the file: --resume PATH'
        )
    return path, [f'--resume: {reason}; resuming from {path}, the last whole one'] if reason else []


def check_resume(model: nn.Module, path: str) -> None:
    """Raise UserError unless training can go on from the checkpoint at ``path``."""
    checkpoint = read_checkpoint(path, '--resume')
    check_strict(model, checkpoint, path, '--resume')
    meta = checkpoint.get('meta') or {}
    lacking = [key for key in ('epoch', 'iter') if key not in meta]
    lacking += [key for key in ('message_hub', 'optimizer') if key not in checkpoint]
    if lacking:
        raise UserError(
            f'--resume: {path} holds weights only (no {", ".join(lacking)}); to start a new '
            f'training from them: --cfg-options load_from={path}'
        )


def check_load_from(model: nn.Module, path: str, dataset: object = None) -> str:
    """Return the log's text about what ``load_from`` gives to the model.

    Args:
        model: to fill.
        path: of the checkpoint.
        dataset: config of what the training reads.

    Raises:
        UserError: it gives nothing to the backbone (or, where there is none, to the model).
    """
    checkpoint = read_checkpoint(path, 'load_from')
    report = compare(model, checkpoint, whose=f'load_from: {path}')
    has_backbone = any(key.startswith('backbone.') for key in model.state_dict())
    part = 'backbone.' if has_backbone else ''
    if not any(key.startswith(part) for key in report.used):
        raise UserError(
            f'load_from: no key {part}* of {path} fits the model. Its keys: '
            f"{few(_state_dict(checkpoint))}; the model's: "
            f'{few(model.state_dict())}. '
            'For the weights of a bare backbone use '
            "model.backbone.init_cfg = dict(type='Pretrained', checkpoint=...)"
        )
    return _text(f'load_from {path}', report, other_digits(checkpoint.get('meta'), dataset))


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
                    f'Its keys: {few(_state_dict(checkpoint))}; wanted: '
                    f'{few(module.state_dict())}. Set init_cfg.prefix to the part of '
                    "the checkpoint, e.g. prefix='backbone.'"
                )
            told = other_digits(checkpoint.get('meta'), dataset)
            texts.append(_text(f'{key} {path}', report, told))
    return texts


def _read_plain(path: str, key: str) -> dict:
    checkpoint = read_checkpoint(path, key)
    names = whitened_layers_in(_state_dict(checkpoint))
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
    return _text(f'{key} {path}', LoadReport(used, missing, (), {}), told)


def _converted(module: nn.Module, init_cfg: dict, key: str) -> str:
    """Return the report of an initializer that can tell what it would load."""
    try:
        conversion = WEIGHT_INITIALIZERS.build(dict(init_cfg)).convert(
            module, key.removesuffix('.init_cfg.checkpoint')
        )
    except (TypeError, ValueError) as error:
        raise UserError(f'{key}: {error}') from error
    return f'{key} {conversion.report}'


def _state_dict(checkpoint: dict) -> dict[str, torch.Tensor]:
    return checkpoint.get('state_dict', checkpoint)


def _holds_tensors(state: dict) -> bool:
    return isinstance(state, dict) and any(isinstance(v, torch.Tensor) for v in state.values())


def _text(source: str, report: LoadReport, *more: str) -> str:
    total = len(report.used) + len(report.missing) + len(report.mismatched)
    lines = [f'{source}: {len(report.used)} of {total} tensors used', *report.differences(), *more]
    return '\n  '.join(filter(None, lines))
