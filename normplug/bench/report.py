"""Make the files of a report: choose the columns of its tables, and what its chart compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from normplug.reports.tables import to_csv, to_markdown

from .chart import chart

__all__ = ['files', 'table']

Row = Mapping[str, Any]

_FORM = ('dtype', 'layout')
_COSTS = ('kept_MB', 'peak_MB', 'first_use_s', 'compilations')
_LAYER_COLUMNS = ('case', 'shape', 'norm', 'backend')
_LAYER_COLUMNS += tuple(f'{part}_ms_p50' for part in ('forward', 'backward'))
_LAYER_COLUMNS += tuple(f'total_ms_{point}' for point in ('p20', 'p50', 'p80'))
_LAYER_COLUMNS += ('host_ms_p50', 'ratio', 'over_us', 'GB/s', 'share_of_copy', *_COSTS)
_MODEL_COLUMNS = ('norm', 'backend', 'step_s_p20', 'step_s_p50', 'step_s_p80', 'images/s', 'ratio')
_MODEL_COLUMNS += _COSTS


def files(name: str, rows: Sequence[Row], source: Row) -> dict[str, bytes]:
    """Return CSV, Markdown and, for times, a chart, by file name.

    Args:
        name: 'layers', 'random_sizes' or a network's.
        rows: as measured.
        source: their provenance.
    """
    rows = _sorted(name, rows)
    made = {f'{name}.csv': to_csv(rows, source), f'{name}.md': table(name, rows, source)}
    title = f'{source["machine"]}, {source["threads"]} threads, torch {source["torch"]}'
    title += f', {source["date"]}, {source["commit"] or "no commit"}'
    if name == 'random_sizes':
        return made
    if name == 'layers':
        picture = chart(rows, ('mode', *_FORM), ('case', 'shape'), ('norm', 'backend'), title)
    else:
        picture = chart(rows, ('model', 'image_size'), _FORM, ('norm', 'backend'), title)
    return made | {f'{name}.png': picture}


def table(name: str, rows: Sequence[Row], source: Row) -> bytes:
    """Return the Markdown alone, from the same arguments."""
    if name == 'random_sizes':
        return to_markdown(rows, tuple(rows[0]), source)
    if name == 'layers':
        columns, groups = _LAYER_COLUMNS, ('mode', *_FORM)
    else:
        columns, groups = _MODEL_COLUMNS, ('model', 'image_size', *_FORM)
    return to_markdown(_sorted(name, rows), columns, source, groups)


def _sorted(name: str, rows: Sequence[Row]) -> Sequence[Row]:
    """Sort rows of layers: all trainings before all evaluations."""
    return sorted(rows, key=lambda row: name == 'layers' and row['mode'] != 'train')
