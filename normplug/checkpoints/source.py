"""Read the tensors of a checkpoint file, by plain names."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from normplug.checkpoint_file import CheckpointError, few, load

__all__ = ['KEPT', 'CheckpointError', 'Source', 'few', 'read']

# The key under which a file in the released layout holds tensors that do not fit it.
KEPT = 'normplug_kept'
_WRAPPERS = ('state_dict', 'model')  # in the released trainers 'model' is the network's name
_PARALLEL = 'module.'


@dataclass(frozen=True)
class Source:
    """What a file holds.

    Attributes:
        path: the file.
        state: its tensors, without wrappers and without ``module.`` in their names.
        kept: tensors by our names, which a conversion to the released layout put aside.
        meta: mmengine's, e.g. the names of the classes.
    """

    path: str
    state: dict[str, Tensor]
    kept: dict[str, Tensor] = field(default_factory=dict)
    meta: dict = field(default_factory=dict)


def read(path: str) -> Source:
    """Read the checkpoint at ``path`` (a file or whatever mmengine can load) to the CPU.

    Raises:
        CheckpointError: the file does not exist, cannot be read, refers to code, has no state dict,
            or has NaN or infinite values.
    """
    checkpoint = load(path)
    state = _tensors(checkpoint, path)
    broken = [name for name, value in state.items() if not _is_finite(value)]
    if broken:
        raise CheckpointError(
            f'{path} has NaN or infinite values in {len(broken)} of {len(state)} tensors '
            f'({few(broken)}): its training diverged, or the file is damaged. Take an earlier one'
        )
    kept, meta = (checkpoint.get(key) for key in (KEPT, 'meta'))
    return Source(path, state, *(part if isinstance(part, dict) else {} for part in (kept, meta)))


def _tensors(checkpoint: object, path: str) -> dict[str, Tensor]:
    holders = [checkpoint]
    if isinstance(checkpoint, dict):
        holders = [checkpoint[key] for key in _WRAPPERS if key in checkpoint] + holders
    for holder in holders:
        if isinstance(holder, dict):
            state = {
                key: value
                for key, value in holder.items()
                if isinstance(key, str) and isinstance(value, Tensor)
            }
            if state:
                break
    else:
        keys = few(map(str, checkpoint)) if isinstance(checkpoint, dict) else ''
        found = f' (only {keys})' if keys else ''
        raise CheckpointError(
            f'{path} holds no state dict{found}; it should have tensors by name, alone or below '
            f'{" or ".join(map(repr, _WRAPPERS))}'
        )
    if all(name.startswith(_PARALLEL) for name in state):
        state = {name[len(_PARALLEL) :]: value for name, value in state.items()}
    return state


def _is_finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(torch.isfinite(value).all())
