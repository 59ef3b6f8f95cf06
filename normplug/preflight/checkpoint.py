"""Check that a checkpoint belongs to the model, before anything is written."""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import nn

from normplug.checkpoint_file import few, load
from normplug.digits_record import other_digits
from normplug.errors import UserError
from normplug.resume.find import last_whole_checkpoint
from normplug.whitened import check_coordinates

__all__ = [
    'LoadReport',
    'check_load_from',
    'check_resume',
    'check_strict',
    'compare',
    'find_resume',
    'read_checkpoint',
    'state_dict_of',
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

    def text(self, source: str, *more: str) -> str:
        """Return what the log tells of it, with ``more`` lines."""
        total = len(self.used) + len(self.missing) + len(self.mismatched)
        lines = [f'{source}: {len(self.used)} of {total} tensors used', *self.differences(), *more]
        return '\n  '.join(filter(None, lines))


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
    if not isinstance(checkpoint, dict) or not _holds_tensors(state_dict_of(checkpoint)):
        keys = f' (only {few(map(str, checkpoint))})' if isinstance(checkpoint, dict) else ''
        raise UserError(
            f'{asked_by}: {path} holds no state_dict{keys}; save the weights as '
            "torch.save({'state_dict': model.state_dict()}, ...)"
        )
    # Infinity may be meant, as in the mask of an attention; NaN never is.
    broken = [name for name, value in state_dict_of(checkpoint).items() if _has_nan(value)]
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
    source = state_dict_of(checkpoint)
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
            f"{few(state_dict_of(checkpoint))}; the model's: "
            f'{few(model.state_dict())}. '
            'For the weights of a bare backbone use '
            "model.backbone.init_cfg = dict(type='Pretrained', checkpoint=...)"
        )
    return report.text(f'load_from {path}', other_digits(checkpoint.get('meta'), dataset))


def state_dict_of(checkpoint: dict) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint, which may be a state dict itself."""
    return checkpoint.get('state_dict', checkpoint)


def _holds_tensors(state: dict) -> bool:
    return isinstance(state, dict) and any(isinstance(v, torch.Tensor) for v in state.values())
