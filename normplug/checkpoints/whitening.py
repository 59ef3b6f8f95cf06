"""SW, IterNorm and GW in checkpoints: their options, start from a batch norm, and release."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from normplug.norms import GW, SW, IterNorm
from normplug.precision import small_dtype

__all__ = ['WHITENING', 'is_gw', 'options_of', 'released_whitening', 'start_of']

WHITENING = {'SW': SW, 'IterNorm': IterNorm, 'GW': GW}
_STATISTICS = ('running_mean', 'running_var', 'num_batches_tracked')

Entries = dict[str, Tensor]


def is_gw(entries: Entries) -> bool:
    """Whether it is a released GW, of (1, C, 1, 1) tensors; ours looks like a group norm's."""
    weight = entries.get('weight')
    if entries.keys() != {'weight', 'bias'} or weight.shape != entries['bias'].shape:
        return False
    return weight.dim() == 4 and weight.numel() == weight.shape[1]


def options_of(kind: str, entries: Entries) -> dict[str, int | bool]:
    """The arguments of a layer that its tensors show; those of GW show none."""
    if kind == 'GW':
        return {}
    if kind == 'IterNorm':
        return {'num_channels': entries['running_wm'].shape[-1]}
    options = {
        'num_pergroup': entries['running_cov'].shape[-1],
        'sw_type': entries['sw_mean_weight'].numel(),
    }
    return options if 'sw_var_weight' in entries else {**options, 'tie_weight': True}


def start_of(batch_norm: Entries, layer: nn.Module) -> Entries:
    """The tensors of a batch norm as ``layer`` takes them: statistics without correlations.

    SW gets the covariance diag(var). IterNorm gets the whitening matrix diag(1/sqrt(var + eps)),
    with which it evaluates to what the batch norm does. GW has no statistics.
    """
    if isinstance(layer, GW):
        return {name: t for name, t in batch_norm.items() if name not in _STATISTICS}
    entries = dict(batch_norm)
    var = entries.pop('running_var').flatten()
    if isinstance(layer, IterNorm):
        var = (var.to(small_dtype(var)) + layer.eps).rsqrt().to(var.dtype)
    return {**entries, layer.matrix_name: torch.diag_embed(var.view(-1, layer.size))}


def released_whitening(kind: str, entries: Entries) -> tuple[Entries, Entries]:
    """Return an SW or IterNorm of ours in the released layout, and what this cannot hold."""
    matrices = entries['running_cov' if kind == 'SW' else 'running_wm']
    mean = entries['running_mean'].reshape(*matrices.shape[:2], 1)
    released = {**entries, 'running_mean': mean}
    if kind == 'IterNorm':
        released |= {name: entries[name].reshape(1, -1, 1, 1) for name in ('weight', 'bias')}
    kept = {name: released.pop(name) for name in ('num_batches_tracked',) if name in released}
    return released, kept
