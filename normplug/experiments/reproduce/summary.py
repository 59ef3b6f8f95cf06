"""What the seeds of a row come to, beside the published numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from normplug.reports.summary import SeedSummary

from .jobs import JobPlan
from .rows import OWN_TEST, Column, Row, Table
from .run import has_diverged

__all__ = ['Cell', 'Summary', 'summarize']


@dataclass(frozen=True)
class Cell(SeedSummary):
    """A column of a row; it has no seeds if the row is not trained at this scale.

    Attributes:
        published: None where there is none.
        absent: whether the data have nothing that this measures.
    """

    published: float | None = None
    absent: bool = False

    @property
    def difference(self) -> float | None:
        """Ours less the published number."""
        both = self.mean is not None and self.published is not None
        return self.mean - self.published if both else None

    def __str__(self) -> str:
        """As a table shows it."""
        if self.values or self.diverged or (self.seeds and not self.absent):
            return super().__str__()
        return 'none' if self.absent else 'not at this scale'


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
    plan: JobPlan,
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


def _cell(
    column: Column,
    row: Row,
    places: Sequence[Mapping[str, Path]],
    records: Mapping[Path, Mapping[str, Any]],
) -> Cell:
    values, absent, diverged = [], False, 0
    for place in places:
        diverged += place[OWN_TEST] not in records and has_diverged(place[OWN_TEST])
        metrics = records.get(place.get(column.test), {}).get('metrics', {})
        # COCO's -1: the data have no object of this size.
        absent = absent or metrics.get(column.metric, 0) < 0
        if metrics.get(column.metric, -1) >= 0:
            value = column.factor * metrics[column.metric]
            values.append(100 - value if column.is_error else value)
    published = row.published.get(column.name)
    return Cell(tuple(values), len(places), diverged, published, absent)


def _mark(cell: Cell, above: Cell | None, column: Column) -> str:
    if above is None or None in (cell.std, above.std) or column.higher_is_better is None:
        return ''
    gain = cell.mean - above.mean if column.higher_is_better else above.mean - cell.mean
    if abs(gain) <= cell.std + above.std:
        return 'equal'
    return 'better' if gain > 0 else 'worse'
