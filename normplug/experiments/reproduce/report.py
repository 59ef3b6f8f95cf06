"""Rows beside the published ones, over the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from normplug.bench.output import to_csv
from normplug.reports.tables import markdown

from .figure import figure
from .jobs import Plan
from .rows import OWN_TEST, Column, Row, Table

__all__ = ['Cell', 'Summary', 'report', 'summarize']

# Where the numbers come from: of these keys of the records, every value that occurs.
_SOURCE = ('command', 'commit', 'date', 'machine', 'processes', 'python', 'torch')
_SOURCE += ('normplug', 'cuda', 'data')


@dataclass(frozen=True)
class Cell:
    """A column of a row.

    Attributes:
        values: of the seeds that are finished.
        seeds: how many were asked for; 0 if the row is not trained at this scale.
        published: None where there is none.
        absent: whether the data have nothing that this measures.
    """

    values: tuple[float, ...]
    seeds: int
    published: float | None
    absent: bool = False

    @property
    def mean(self) -> float | None:
        """Over the seeds."""
        return mean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Unbiased; None of less than two seeds."""
        return stdev(self.values) if len(self.values) > 1 else None

    @property
    def difference(self) -> float | None:
        """Ours less the published number."""
        both = self.mean is not None and self.published is not None
        return self.mean - self.published if both else None

    def __str__(self) -> str:
        """As a table shows it."""
        if self.mean is None:
            return 'none' if self.absent else 'missing' if self.seeds else 'not at this scale'
        text = f'{self.mean:.1f}' if self.std is None else f'{self.mean:.1f} ± {self.std:.1f}'
        few = len(self.values) < self.seeds
        return text + (f' ({len(self.values)} of {self.seeds} seeds)' if few else '')


@dataclass(frozen=True)
class Summary:
    """A row.

    Attributes:
        row: what it is.
        cells: by column.
        speed: images a second in training, mean over the seeds.
        memory: peak, in MB, the largest of the seeds.
        mark: 'better' or 'worse' than the row above by more than the spread, 'equal' within it; ''
            where that cannot be told.
    """

    row: Row
    cells: dict[str, Cell]
    speed: float | None
    memory: int | None
    mark: str


def summarize(
    table: Table,
    rows: Sequence[Row],
    seeds: Sequence[int],
    plan: Plan,
    records: Mapping[Path, Mapping[str, Any]],
) -> list[Summary]:
    """A summary of each row.

    Args:
        table: the table.
        rows: of it, those that were chosen.
        seeds: that were asked for.
        plan: says in which folder a cell's numbers are.
        records: of the jobs that ended well, by folder.
    """
    summaries: list[Summary] = []
    for row in rows:
        keys = [(table.name, row.name, seed) for seed in seeds]
        places = [plan.cells[key] for key in keys if key in plan.cells]
        trained = [records[p[OWN_TEST]] for p in places if p.get(OWN_TEST) in records]
        cells = {column.name: _cell(column, row, places, records) for column in table.columns}
        first = table.columns[0]
        comparable = summaries and summaries[-1].row.group == row.group
        above = summaries[-1].cells[first.name] if comparable else None
        summaries.append(
            Summary(
                row,
                cells,
                mean(record['images_per_second'] for record in trained) if trained else None,
                max((record['peak_memory'] or 0 for record in trained), default=None),
                _mark(cells[first.name], above, first),
            )
        )
    return summaries


def report(
    table: Table, data: str, summaries: Sequence[Summary], records: Sequence[Mapping[str, Any]]
) -> dict[str, bytes]:
    """Markdown, CSV and a figure by file name, of the rows at the scale of ``data``."""
    source = {name: _all_values(records, name) for name in _SOURCE}
    digits = (
        f'**Here: {table.at_digits}.** The published number is that of another task: compare the '
        'order of the rows, not the numbers. A norm has one pretraining, whose spread is not in '
        'that of the seeds.\n\n'
    )
    note = (
        f'# {table.title}\n\n{digits if data == "digits" else ""}'
        'Per cent; published / ours (mean ± standard deviation over the seeds) / difference. '
        f'Published numbers: {table.source}. '
        f'"{table.columns[0].name}" is better or worse than in the row above if it differs by more '
        'than the sum of their standard deviations.\n\n'
    )
    lines = [_line(table, summary) for summary in summaries]
    facts = [f'- {name}: `{value}`' for name, value in source.items() if value]
    text = note + markdown(tuple(lines[0]), lines) + '\n' + '\n'.join(facts) + '\n'
    rows = [line for summary in summaries for line in _csv_lines(table, summary)]
    return {
        f'{table.name}.md': text.encode(),
        f'{table.name}.csv': to_csv(rows, source),
        f'{table.name}.png': figure(table, 'digits' if data == 'digits' else 'here', summaries),
    }


def _cell(
    column: Column,
    row: Row,
    places: Sequence[Mapping[str, Path]],
    records: Mapping[Path, Mapping[str, Any]],
) -> Cell:
    values, absent = [], False
    for place in places:
        metrics = records.get(place.get(column.test), {}).get('metrics', {})
        # COCO's -1: the data have no object of this size.
        absent = absent or metrics.get(column.metric, 0) < 0
        if metrics.get(column.metric, -1) >= 0:
            value = column.factor * metrics[column.metric]
            values.append(100 - value if column.is_error else value)
    return Cell(tuple(values), len(places), row.published.get(column.name), absent)


def _mark(cell: Cell, above: Cell | None, column: Column) -> str:
    if above is None or None in (cell.std, above.std) or column.higher_is_better is None:
        return ''
    gain = cell.mean - above.mean if column.higher_is_better else above.mean - cell.mean
    if abs(gain) <= cell.std + above.std:
        return 'equal'
    return 'better' if gain > 0 else 'worse'


def _line(table: Table, summary: Summary) -> dict[str, str]:
    line = {'row': summary.row.name}
    for column in table.columns:
        cell = summary.cells[column.name]
        if not cell.values and cell.published is None:
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
