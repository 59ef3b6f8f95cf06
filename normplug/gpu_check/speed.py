"""Time code made for another size, layers beside batch norm, and a step of Mask R-CNN."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from normplug.bench.cases import QUICK, R50_FPN, Case
from normplug.bench.compilation import empty_cache, forget_compiled
from normplug.bench.contenders import Contender
from normplug.bench.layers import measure_layers
from normplug.bench.parity import ParityError
from normplug.bench.timing import in_turns, quantiles

from .checks import Check, FailedError, Setting, SkippedError

__all__ = ['layer_checks', 'model_checks', 'order_checks']

# A layer's time by code that was made for another size first, over that by code for its own.
LARGEST_RATIO = 1.5
_ORDERS = (('stem', 'box head'), ('box head', 'stem'), ('box head', 'stage 4 out'))
_SMALL = {'stem': (2, 8, 40, 64), 'box head': (64, 16, 7, 7), 'stage 4 out': (2, 64, 5, 7)}
_NORMS = ('SN', 'IBN', 'KN')
_SECONDS = 0.3  # of measuring a case
_FREE = 16 * 2**30  # bytes that Mask R-CNN on two images of 800×1333 needs


def order_checks(setting: Setting) -> Iterator[Check]:
    """A check for each type and pair of sizes."""
    if 'compiled' not in setting.backends:
        return
    shapes = _SMALL if setting.quick else R50_FPN
    for name in ('SN', 'IBN'):
        for first, then in _ORDERS:
            call = partial(_order, name, shapes[first], shapes[then], setting.device)
            yield Check(f'{name}, {then} after {first}', call)


def layer_checks(setting: Setting) -> Iterator[Check]:
    """A check for each form of the input: the tables of ``tools/benchmark.py --quick``."""
    for form in (('float32', 'contiguous'), ('float16', 'channels_last')):
        yield Check(', '.join(form), partial(_layers, form, setting))


def model_checks(setting: Setting) -> Iterator[Check]:
    """Mask R-CNN, in full and in half precision."""
    if setting.quick:
        return
    for dtype in ('float32', 'float16'):
        yield Check(f'Mask R-CNN, {dtype}', partial(_mask_rcnn, dtype, setting), gpus=1)


def _order(name: str, first: tuple[int, ...], then: tuple[int, ...], device: str) -> str:
    own, other = (_milliseconds(name, before, then, device) for before in (then, first))
    told = f'{other:.3f} ms by code for another size, {own:.3f} ms by its own: {other / own:.2f}'
    if not other / own < LARGEST_RATIO:
        raise FailedError(f'{told} (allowed: below {LARGEST_RATIO})')
    return told


def _milliseconds(name: str, first: tuple[int, ...], then: tuple[int, ...], device: str) -> float:
    """Of a training step at ``then``, the code made at ``first``: the median."""
    forget_compiled()
    with empty_cache():
        for shape in (first, then):
            layer = Contender(name, shape[1], 'compiled', device)
            layer.choose_backend()
            x, dy = Case('', shape, 'float32', 'contiguous', device).tensors()
            layer.backward(layer.forward(x), x, dy)
        parts = [layer.forward, lambda y: layer.backward(y, x, dy)]
        (times,) = in_turns([lambda: [lambda _: parts[0](x), parts[1]]], device, _SECONDS)
    return quantiles([sum(t.parts) for t in times])[1] * 1e3


def _layers(form: tuple[str, str], setting: Setting) -> str:
    names = ['stage 4 out', 'tiny 4x4'] if setting.quick else QUICK
    cases = [Case(name, R50_FPN[name], *form, setting.device) for name in names]
    backend = setting.backends[-1]
    try:
        rows = measure_layers(cases, _NORMS, [backend], _SECONDS, lambda line: None)
    except ParityError as error:
        raise FailedError(str(error)) from error
    setting.tables.setdefault('layers', []).extend(rows)
    return f'time over BN in training: {_ratios(rows)}'


def _ratios(rows: list[dict[str, Any]]) -> str:
    """By norm, over the cases."""
    told = []
    for name in _NORMS:
        own = [r['ratio'] for r in rows if r['norm'] == name and r['mode'] == 'train']
        told.append(f'{name} {min(own):.2f} to {max(own):.2f}')
    return ', '.join(told)


def _mask_rcnn(dtype: str, setting: Setting) -> str:
    if importlib.util.find_spec('mmdet') is None:
        raise SkippedError('mmdet is not installed')
    torch.cuda.empty_cache()  # what torch keeps for itself is not free
    free, _ = torch.cuda.mem_get_info()
    if free < _FREE:
        raise SkippedError(f'{free / 2**30:.0f} GiB are free, of {_FREE / 2**30:.0f} needed')
    from normplug.bench.models import DivergedError, measure_model
    from normplug.bench.networks import Network

    network = Network('mask-rcnn', 2, 800, 1333)
    options = (dtype, 'contiguous', setting.device, 2.0, lambda line: None)
    try:
        rows = measure_model(network, ['SN'], [setting.backends[-1]], *options)
    except DivergedError as error:
        raise FailedError(str(error)) from error
    setting.tables.setdefault('mask-rcnn', []).extend(rows)
    (own,) = [row for row in rows if row['norm'] == 'SN']
    return f'a step with SN takes {own["step_s_p50"]:.3f} s, {own["ratio"]:.2f} of that with BN'
