"""Convert a norm layer of ours to the released layout; load hooks convert it back."""

from __future__ import annotations

import torch
from torch import Tensor

from normplug.norms.ssn import is_decided, one_hot

from .layers import Entries, kind_of
from .source import CheckpointError
from .whitening import released_whitening

__all__ = ['released_layer']


def released_layer(entries: Entries, where: str) -> tuple[Entries, Entries]:
    """Return a layer of ours in the released layout, and the tensors that this cannot hold.

    Args:
        entries: the layer's tensors, ours.
        where: file and layer, for the message.

    Raises:
        CheckpointError: the released layer cannot compute this.
    """
    kind = kind_of(entries)
    if kind == 'IBN':
        return _released_ibn(entries, where), {}
    if kind in ('SW', 'IterNorm'):
        return released_whitening(kind, entries)
    if kind not in ('SN', 'SSN'):
        return dict(entries), {}
    if entries['mean_weight'].numel() != 2 + ('running_mean' in entries):
        raise CheckpointError(f'{where}: released 2-d layers all have IN, but this has none')
    released, kept = {}, {}
    for name, value in entries.items():
        if name in ('weight', 'bias'):
            released[name] = value.reshape(1, -1, 1, 1)
        elif name in ('running_mean', 'running_var'):
            released[name] = value.reshape(1, -1, 1)
        elif name == 'num_batches_tracked':
            kept[name] = value
        elif name == 'radius':
            released[name] = value.reshape(1)
        elif not name.endswith('_choice'):
            released[name] = value
    for part in ('mean', 'var') if kind == 'SSN' else ():
        choice = entries[f'{part}_choice']
        decided = bool(is_decided(choice))
        released[f'{part}_fixed'] = torch.tensor([int(decided)])
        if decided:  # the released layer then takes its logits for the ratios
            kept[f'{part}_weight'] = entries[f'{part}_weight']
            released[f'{part}_weight'] = one_hot(choice)
    return released, kept


def _released_ibn(entries: Entries, where: str) -> Entries:
    channels = entries['weight'].numel()
    half = channels - entries['running_mean'].numel()
    if half != channels // 2:
        raise CheckpointError(
            f'{where}: released IBN has half of the channels under instance norm, but this has '
            f'{half} of {channels}'
        )
    released: dict[str, Tensor] = {}
    for name, value in entries.items():
        if name in ('weight', 'bias'):
            released[f'IN.{name}'] = value[:half].clone()
            released[f'BN.{name}'] = value[half:].clone()
        else:
            released[f'BN.{name}'] = value
    return released
