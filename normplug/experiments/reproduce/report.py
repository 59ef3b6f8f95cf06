"""The files of a table: its rows beside the published ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from normplug.reports.output import png
from normplug.reports.tables import facts, markdown, to_csv

from .figure import figure
from .rows import Table
from .summary import Summary

__all__ = ['report']

# Where the numbers come from: of these keys of the records, every value that occurs.
_SOURCE = ('command', 'commit', 'date', 'machine', 'processes', 'python', 'torch')
_SOURCE += ('normplug', 'cuda', 'data')


def report(
    table: Table,
    data: str,
    summaries: Sequence[Summary],
    records: Sequence[Mapping[str, Any]],
    own_pretraining: bool | None = None,
) -> dict[str, bytes]:
    """Markdown, CSV and a figure by file name, of the rows at the scale of ``data``.

    ``own_pretraining`` says whether each seed has a pretraining of its own; None, that no row
    starts from a training of ours.
    """
    source = {name: _all_values(records, name) for name in _SOURCE}
    digits = (
        f'**Here: {table.at_digits}.** The published number is that of another task: compare the '
        'order of the rows, not the numbers.\n\n'
    )
    pretraining = {
        None: '',
        True: 'Each seed has a pretraining of its own. ',
        False: 'All seeds of a norm start from one pretraining, whose spread is not in theirs. ',
    }[own_pretraining]
    note = (
        f'# {table.title}\n\n{digits if data == "digits" else ""}'
        f'{pretraining}Per cent; published / ours (mean ± standard deviation over the seeds) / '
        f'difference. Published numbers: {table.source}. '
        f'"{table.columns[0].name}" is better or worse than in the row above if it differs by more '
        'than the sum of their standard deviations.\n\n'
    )
    lines = [_line(table, summary) for summary in summaries]
    text = f'{note}{markdown(tuple(lines[0]), lines)}\n{facts(source)}'
    rows = [line for summary in summaries for line in _csv_lines(table, summary)]
    where = 'digits' if data == 'digits' else 'here'
    return {
        f'{table.name}.md': text.encode(),
        f'{table.name}.csv': to_csv(rows, source),
        f'{table.name}.png': png(figure(table, where, summaries)),
    }


def _line(table: Table, summary: Summary) -> dict[str, str]:
    line = {'row': summary.row.name}
    for column in table.columns:
        cell = summary.cells[column.name]
        if not (cell.values or cell.diverged) and cell.published is None:
            line[column.name] = '-'
            continue
        paper = '-' if cell.published is None else f'{cell.published:g}'
        difference = '-' if cell.difference is None else f'{cell.difference:+.1f}'
        line[column.name] = f'{paper} / {cell} / {difference}'
    line['against the row above'] = summary.mark
    line['images/s'] = '' if summary.speed is None else f'{summary.speed:.3g}'
    line['peak memory (MB)'] = summary.memory or ''
    return line


def _csv_lines(table: Table, summary: Summary) -> list[dict[str, Any]]:
    return [
        {
            'table': table.name,
            'row': summary.row.name,
            'column': column.name,
            'published': cell.published,
            'mean': cell.mean,
            'std': cell.std,
            'difference': cell.difference,
            'values': ' '.join(f'{value:.3f}' for value in cell.values),
            'seeds': cell.seeds,
            'diverged': cell.diverged,
            'against_row_above': summary.mark if column is table.columns[0] else '',
            'images_per_second': summary.speed,
            'peak_memory_mb': summary.memory,
        }
        for column in table.columns
        for cell in [summary.cells[column.name]]
    ]


def _all_values(records: Sequence[Mapping[str, Any]], name: str) -> str:
    values = dict.fromkeys(str(record[name]) for record in records if record.get(name))
    return '; '.join(values)
