"""The table of layers: times by layer and input, measured in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from .cases import Case
from .compilation import compilations, forget_compiled, ran_by
from .contenders import GROUPS, Contender, contenders
from .memory import kept_bytes, peak_bytes
from .parity import check_parity
from .timing import Parts, Times, copy_bandwidth, in_turns, quantiles, seconds_of

__all__ = ['measure_layers']

Row = dict[str, Any]

# Necessary transfers of x's size. In training: forward reads x for its statistics, reads x,
# writes y; backward reads x and dy for two sums, reads them again, writes dx. In evaluation batch
# norm has its statistics already.
_TRANSFERS = {True: 8, False: 3}
_TRANSFERS_OF_BN_IN_EVALUATION = 2


def measure_layers(
    cases: Iterable[Case],
    norms: Sequence[str],
    backends: Sequence[str],
    seconds: float,
    say: Callable[[str], None],
) -> list[Row]:
    """A row for each case, mode (training, evaluation), norm and backend.

    BN is measured everywhere, and GN in evaluation where it divides the channels. The ratio of a
    row is the median over the rounds of its time to BN's of the same round; in evaluation to GN's,
    if there is one.

    Args:
        cases: what to measure on. Compiled code is forgotten where dtype or layout change.
        norms: keys of ``contenders.LAYERS``.
        backends: of the norms that are ours.
        seconds: for the rounds of each case and mode.
        say: takes a line of progress.

    Raises:
        ParityError: a layer disagrees with the reference.
    """
    rows = []
    before = compilations()
    for _, group in groupby(cases, lambda case: (case.dtype, case.layout)):
        forget_compiled()
        for case in group:
            say(f'{case.name} {case}'.strip())
            rows += _measure(case, norms, backends, seconds)
    compiled = compilations() - before
    return [row | {'backend': ran_by(row['backend'], compiled)} for row in rows]


def _measure(
    case: Case, norms: Sequence[str], backends: Sequence[str], seconds: float
) -> list[Row]:
    channels = case.shape[1]
    both = contenders([*norms, 'BN'], backends, channels, case.device)
    evaluated = ['GN'] if channels % GROUPS == 0 else []
    group_norm = contenders(evaluated, backends, channels, case.device)
    bandwidth = copy_bandwidth(case.device)
    rows = []
    for training in (True, False):
        field = both if training else both + group_norm
        rows += _rounds(case, field, training, seconds, bandwidth)
    return rows


def _rounds(
    case: Case, field: Sequence[Contender], training: bool, seconds: float, bandwidth: float
) -> list[Row]:
    x, dy = case.tensors()
    facts = [_prepare(contender, case, training, x, dy) for contender in field]
    steps = [_step(contender, training, x, dy) for contender in field]
    times = in_turns(steps, case.device, seconds)
    base = next(i for i, c in enumerate(field) if c.name == _base(field, training))
    rows = []
    for contender, own, fact in zip(field, times, facts, strict=True):
        bn_in_evaluation = contender.name == 'BN' and not training
        transfers = _TRANSFERS_OF_BN_IN_EVALUATION if bn_in_evaluation else _TRANSFERS[training]
        speed = transfers * case.size / quantiles(_totals(own))[1]
        rows.append(
            {
                'case': case.name,
                'shape': 'x'.join(map(str, case.shape)),
                'dtype': case.dtype,
                'layout': case.layout,
                'mode': 'train' if training else 'eval',
                'norm': contender.name,
                'backend': contender.backend or 'native',
                **_times(own, times[base]),
                'ratio_to': field[base].name,
                'GB/s': speed / 1e9,
                'copy_GB/s': bandwidth / 1e9,
                'share_of_copy': speed / bandwidth,
                **fact,
            }
        )
    return rows


def _base(field: Sequence[Contender], training: bool) -> str:
    return 'GN' if not training and any(c.name == 'GN' for c in field) else 'BN'


def _prepare(contender: Contender, case: Case, training: bool, x: Tensor, dy: Tensor) -> Row:
    """Run a layer for the first time, check it, and measure its memory."""
    contender.layer.train(training)
    contender.choose_backend()
    compiled = compilations()
    first_use = seconds_of(lambda: _run(_parts(contender, training, x, dy)), case.device)
    if contender.is_ours:
        check_parity(contender, case, training)
    kept = kept_bytes(lambda: contender.forward(x), contender.layer)
    peak = peak_bytes(lambda: _run(_parts(contender, training, x, dy)), case.device)
    return {
        'kept_MB': kept / 1e6 if training else None,
        'peak_MB': None if peak is None else peak / 1e6,
        'first_use_s': first_use,
        'compilations': compilations() - compiled,
    }


def _run(parts: Parts) -> None:
    value = None
    for part in parts:
        value = part(value)


def _step(contender: Contender, training: bool, x: Tensor, dy: Tensor) -> Callable[[], Parts]:
    def prepare() -> Parts:
        contender.choose_backend()
        return _parts(contender, training, x, dy)

    return prepare


def _parts(contender: Contender, training: bool, x: Tensor, dy: Tensor) -> Parts:
    if training:
        return [lambda _: contender.forward(x), lambda y: contender.backward(y, x, dy)]
    return [torch.no_grad()(lambda _: contender.forward(x))]


def _times(own: Sequence[Times], base: Sequence[Times]) -> Row:
    row: Row = {}
    halves = {'forward': [t.parts[0] for t in own]}
    if len(own[0].parts) > 1:
        halves['backward'] = [t.parts[1] for t in own]
    for name in ('forward', 'backward', 'total'):
        values = _totals(own) if name == 'total' else halves.get(name)
        points = quantiles(values) if values else (None,) * 3
        for label, point in zip(('p20', 'p50', 'p80'), points, strict=True):
            row[f'{name}_ms_{label}'] = None if point is None else point * 1e3
    pairs = list(zip(_totals(own), _totals(base), strict=True))
    host = [t.host for t in own if t.host is not None]
    return row | {
        'host_ms_p50': quantiles(host)[1] * 1e3 if host else None,
        'rounds': len(own),
        'ratio': quantiles([a / b for a, b in pairs])[1],
        'over_us': quantiles([a - b for a, b in pairs])[1] * 1e6,
    }


def _totals(times: Sequence[Times]) -> list[float]:
    return [sum(t.parts) for t in times]
