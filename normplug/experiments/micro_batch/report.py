"""The table of an experiment: error against normalization batch, over the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from normplug.bench.output import to_csv, to_markdown

from .cells import Cell
from .figure import figure

__all__ = ['Summary', 'files', 'summarize']

# Where the rows of a table come from: of these keys of a row, every value that occurs.
_SOURCE = ('command', 'commit', 'date', 'machine', 'threads', 'processes')
_SOURCE += ('python', 'torch', 'normplug', 'cuda', 'config')


@dataclass(frozen=True)
class Summary:
    """A normalizer at one normalization batch.

    Attributes:
        norm, batch: see :class:`Cell`.
        seeds: how many were asked for.
        errors: validation errors in percent, of the seeds that are finished and did not diverge.
        diverged: of how many seeds the loss became NaN or Inf.
        train_loss, seconds: means over the seeds that are finished; None if none is.
    """

    norm: str
    batch: int | None
    seeds: int
    errors: tuple[float, ...]
    diverged: int
    train_loss: float | None
    seconds: float | None

    @property
    def mean(self) -> float | None:
        """Of the errors; None if there are none, or if a seed diverged: the rest is a selection."""
        return mean(self.errors) if self.errors and not self.diverged else None

    @property
    def std(self) -> float | None:
        """The errors' standard deviation (unbiased); None of less than two."""
        return stdev(self.errors) if self.mean is not None and len(self.errors) > 1 else None

    def __str__(self) -> str:
        """The cell of a table; a dash if nothing is finished."""
        if self.diverged:
            return f'diverged: {self.diverged} of {len(self.errors) + self.diverged} seeds'
        if self.mean is None:
            return '-'
        text = f'{self.mean:.1f}' if self.std is None else f'{self.mean:.1f} ± {self.std:.1f}'
        missing = len(self.errors) < self.seeds
        return text + (f' ({len(self.errors)} of {self.seeds} seeds)' if missing else '')


def summarize(cells: Sequence[Cell], results: Mapping[Cell, Mapping[str, Any]]) -> list[Summary]:
    """A summary of each normalizer and normalization batch in ``cells``, in their order."""
    summaries = []
    for norm, batch in dict.fromkeys((cell.norm, cell.batch) for cell in cells):
        wanted = [cell for cell in cells if (cell.norm, cell.batch) == (norm, batch)]
        rows = [results[cell] for cell in wanted if cell in results]
        finite = [row for row in rows if row['error'] is not None]
        summaries.append(
            Summary(
                norm,
                batch,
                len(wanted),
                tuple(row['error'] for row in finite),
                len(rows) - len(finite),
                mean(row['train_loss'] for row in finite) if finite else None,
                mean(row['seconds'] for row in rows) if rows else None,
            )
        )
    return summaries


def files(cells: Sequence[Cell], results: Mapping[Cell, Mapping[str, Any]]) -> dict[str, bytes]:
    """CSV, Markdown and a figure by file name, of ``cells`` as far as ``results`` has them."""
    summaries = summarize(cells, results)
    rows = [results[cell] for cell in cells if cell in results]
    source = {name: _all_values(rows, name) for name in _SOURCE}
    columns = sorted({s.batch for s in summaries if s.batch is not None})
    columns = [*columns, *({None} & {s.batch for s in summaries})]
    names = {batch: 'none' if batch is None else str(batch) for batch in columns}
    table = []
    for norm in dict.fromkeys(s.norm for s in summaries):
        own = {names[s.batch]: str(s) for s in summaries if s.norm == norm}
        table.append({'norm': norm.upper()} | dict.fromkeys(names.values(), '') | own)
    note = (
        'Validation error (%) after the last iteration, mean ± standard deviation over the seeds, '
        'by normalization batch.\n\n'
    )
    return {
        'micro_batch.csv': to_csv([_csv_row(s) for s in summaries], source),
        'micro_batch.md': note.encode() + to_markdown(table, tuple(table[0]), source),
        'micro_batch.png': figure(summaries),
    }


def _all_values(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    values = dict.fromkeys(str(row[name]) for row in rows if row.get(name) not in (None, ''))
    return '; '.join(values)


def _csv_row(summary: Summary) -> dict[str, Any]:
    return {
        'norm': summary.norm,
        'batch': summary.batch,
        'seeds': summary.seeds,
        'finished': len(summary.errors) + summary.diverged,
        'diverged': summary.diverged,
        'error_mean': summary.mean,
        'error_std': summary.std,
        'errors': ' '.join(f'{error:.2f}' for error in summary.errors),
        'train_loss_mean': summary.train_loss,
        'seconds_mean': summary.seconds,
    }
