"""The ratios of SN, SSN and SW, from a checkpoint alone or over the course of a run."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from normplug.checkpoints.source import CheckpointError, Source, read
from normplug.norms import SN, SSN, SW
from normplug.norms.switchable import SwitchableNorm

from .runs import read_scalars

__all__ = [
    'NORMALIZERS',
    'STATISTICS',
    'Ratios',
    'normalizers_in',
    'ratio_rows',
    'read_evolution',
    'read_ratios',
]

NORMALIZERS = ('IN', 'LN', 'BN', 'IW', 'BW')
STATISTICS = ('mean', 'variance')  # or SW's covariance
# Layer → statistic → normalizer → ratio, in the model's order.
Ratios = dict[str, dict[str, dict[str, float]]]

_BY_TAG = {'mean': 'mean', 'var': 'variance'}  # of NormRatioHook's scalars


def read_ratios(checkpoint: str | Path) -> Ratios:
    """The ratios of every SN, SSN and SW in a checkpoint, ours or released, without its model.

    After the softmax or SparsestMax; a choice of SSN is a ratio of 1.

    Raises:
        CheckpointError: the file is no checkpoint, or has no SN, SSN or SW.
    """
    return _ratios_in(read(str(checkpoint)))


def read_evolution(work_dir: str | Path) -> dict[int, Ratios]:
    """Iterations done → ratios, in order, of the latest training in ``work_dir``.

    From the scalars of ``NormRatioHook``; where there are none, from the checkpoints of epochs and
    iterations.

    Raises:
        CheckpointError: there are neither, or a checkpoint has no SN, SSN or SW.
    """
    work_dir = Path(work_dir)
    evolution: dict[int, Ratios] = {
        step: ratios
        for step, layers in read_scalars(work_dir, 'ratio').items()
        if (
            ratios := {name: row for name, values in layers.items() if (row := _of_scalars(values))}
        )
    }
    checkpoints = [*work_dir.glob('epoch_*.pth'), *work_dir.glob('iter_*.pth')]
    for path in [] if evolution else checkpoints:
        source = read(str(path))
        evolution[_iterations(source)] = _ratios_in(source)
    if not evolution:
        raise CheckpointError(
            f'{work_dir} has neither */vis_data/scalars.json with the ratios that NormRatioHook '
            'logs nor a checkpoint epoch_*.pth or iter_*.pth'
        )
    if len({tuple(ratios) for ratios in evolution.values()}) > 1:
        raise CheckpointError(
            f'{work_dir} has trainings of different models in it: name a checkpoint of one'
        )
    return dict(sorted(evolution.items()))


def normalizers_in(ratios: Iterable[Ratios]) -> tuple[str, ...]:
    """Return the normalizers that some layer mixes."""
    used = {name for one in ratios for layer in one.values() for name in layer['mean']}
    return tuple(name for name in NORMALIZERS if name in used)


def ratio_rows(evolution: dict[int, Ratios]) -> list[dict[str, str | int]]:
    """A row for each iteration, layer and statistic; ``choice`` names a ratio of 1.

    The columns are IN, LN and BN, and what other normalizers some layer mixes.
    """
    used = normalizers_in(evolution.values())
    columns = [name for name in NORMALIZERS if name in used or name in ('IN', 'LN', 'BN')]
    return [
        {
            'iteration': iteration,
            'layer': layer,
            'statistic': statistic,
            **{n: f'{values[n]:.6f}' if n in values else '' for n in columns},
            'choice': next((name for name, value in values.items() if value == 1), ''),
        }
        for iteration, ratios in evolution.items()
        for layer, statistics in ratios.items()
        for statistic, values in statistics.items()
    ]


def _iterations(source: Source) -> int:
    done = source.meta.get('iter')
    if not isinstance(done, int):
        raise CheckpointError(f'{source.path} does not say after how many iterations it was saved')
    return done


def _ratios_in(source: Source) -> Ratios:
    ratios = {}
    for key in source.state:
        name, _, leaf = key.rpartition('.')
        if leaf in ('mean_weight', 'sw_mean_weight'):
            below = f'{name}.' if name else ''
            own = {k[len(below) :]: v for k, v in source.state.items() if k.startswith(below)}
            ratios[name] = _ratios_of(_layer(own, f'{source.path}: {name}'))
    if not ratios:
        raise CheckpointError(
            f'{source.path} has no SN, SSN or SW (no key ends in .mean_weight or .sw_mean_weight)'
        )
    return ratios


def _layer(own: dict[str, Tensor], where: str) -> SwitchableNorm | SW:
    """A layer with the ratios of a state dict: what turns logits into ratios is its own."""
    try:
        layer = _without_ratios(own)
        fitting = {k: own[k] for k in _RATIO_STATE if k in own}
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # the channels' tensors stay out
            layer.load_state_dict(fitting, strict=False)
    except (RuntimeError, KeyError, ValueError) as error:
        raise CheckpointError(f'{where} is no layer of SN, SSN or SW: {error}') from error
    return layer


def _without_ratios(own: dict[str, Tensor]) -> SwitchableNorm | SW:
    if 'sw_mean_weight' in own:
        tied = 'sw_var_weight' not in own
        return SW(1, sw_type=own['sw_mean_weight'].numel(), tie_weight=tied)
    using_bn = 'running_mean' in own
    using_in = own['mean_weight'].numel() > 1 + using_bn
    return (SSN if 'radius' in own else SN)(1, using_in=using_in, using_bn=using_bn)


_RATIO_STATE = ('mean_weight', 'var_weight', 'radius', 'mean_choice', 'var_choice')
_RATIO_STATE += ('sw_mean_weight', 'sw_var_weight')
_RATIO_STATE += ('mean_fixed', 'var_fixed')  # of the released SSN, which the layer understands


def _ratios_of(layer: SwitchableNorm | SW) -> dict[str, dict[str, float]]:
    names = [name.upper() for name in layer.normalizers]
    values = (ratios.tolist() for ratios in layer.ratios())
    return {
        statistic: dict(zip(names, row, strict=True))
        for statistic, row in zip(STATISTICS, values, strict=True)
    }


def _of_scalars(values: dict[str, float]) -> dict[str, dict[str, float]]:
    """The ratios of a layer; what is logged of it beside them, by another hook, is left out."""
    row: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        statistic, _, normalizer = name.partition('_')
        if statistic in _BY_TAG:
            row = row or {s: {} for s in STATISTICS}
            row[_BY_TAG[statistic]][normalizer.upper()] = value
    return row
