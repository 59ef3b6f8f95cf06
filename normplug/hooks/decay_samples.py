"""How many samples the decay of each layer is of."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from math import inf

import torch
from torch import Tensor

from normplug.errors import UnsuitableModelError, UserError
from normplug.norms import BaseNorm
from normplug.norms.base import is_number

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
        UserError: the file is not there or not of tools/plot_batch_noise.py.
        UnsuitableModelError: a layer has no such numbers of at least 1.
    """
    if is_number(samples):
        return samples
    found, where = samples, 'in samples'
    if isinstance(samples, str):
        found, where = _last_measurement(samples), f'in {samples}'
    columns = []
    for name, layer in layers.items():
        row = found.get(name)
        if not isinstance(row, Mapping) or f'{name}/call_2' in found:
            row = {}
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


def _last_measurement(path: str) -> dict[str, dict[str, float]]:
    try:
        with open(path, encoding='utf-8', newline='') as file:
            rows = list(csv.DictReader(file))
        last = max(int(row['iteration']) for row in rows)
        return {
            row['layer']: {name: float(row[name]) for name in _NAMES if row[name]}
            for row in rows
            if int(row['iteration']) == last
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'GammaDecayHook: samples: {path} is no batch_noise.csv ({type(error).__name__}: '
            f'{error}): tools/plot_batch_noise.py writes it of a run with BatchNoiseHook'
        ) from error
