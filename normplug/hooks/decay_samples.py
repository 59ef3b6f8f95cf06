"""How many samples the decay of each layer is of."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from pathlib import Path

import torch
from torch import Tensor

from normplug.errors import UnsuitableModelError, UserError
from normplug.norms import BaseNorm
from normplug.norms.base import is_number
from normplug.reports.runs import read_scalars

__all__ = ['samples_of_layers']

_NAMES = ('std_samples', 'mean_samples')  # of BatchNoiseHook; in the order of ζ's terms

Samples = float | str | Mapping[str, Mapping[str, float]]


def samples_of_layers(samples: Samples, layers: Mapping[str, BaseNorm]) -> Tensor | float:
    """Return M as :meth:`normplug.population.DecayEstimate.strength` takes it.

    Args:
        samples: see :class:`normplug.hooks.GammaDecayHook`.
        layers: by name.

    Returns:
        A number as it is, else M of σ_B and of μ_B by channel, (2, ΣC), float64.

    Raises:
        UserError: the work dir has no such records.
        UnsuitableModelError: a layer has no such numbers of at least 1.
    """
    if is_number(samples):
        return samples
    found, where = samples, 'of samples'
    if isinstance(samples, str):
        measured, where = read_scalars(Path(samples), 'batch_noise'), f'in {samples}'
        if not measured:
            raise UserError(
                f'GammaDecayHook: samples: {samples} has no */vis_data/scalars.json with records '
                "of BatchNoiseHook: train with custom_hooks=[dict(type='BatchNoiseHook')] first"
            )
        found = measured[max(measured)]
    columns = []
    for name, layer in layers.items():
        row = {} if f'{name}/call_2' in found else found.get(name, {})
        numbers = [row.get(key) for key in _NAMES]
        if not all(is_number(number) and 1 <= number < inf for number in numbers):
            told = ' and '.join(f'{k}={n!r}' for k, n in zip(_NAMES, numbers, strict=True))
            raise UnsuitableModelError(
                f'GammaDecayHook: samples: {name} has {told} {where}; a layer needs both as '
                'numbers from 1 (one that runs several times has several): leave it out by the '
                'option layers, or give samples as one number'
            )
        columns.append(torch.tensor(numbers).double()[:, None].expand(2, layer.num_features))
    return torch.cat(columns, 1)
