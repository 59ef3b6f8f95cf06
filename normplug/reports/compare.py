"""The command line of tools/compare_runs.py."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from normplug.errors import UserError, exit_code

from .figures import plot_losses, plot_metric
from .output import png, write_all
from .runs import Run, read_run
from .tables import markdown, to_csv

__all__ = ['main_compare_runs']

# Of mmengine's records: no metrics.
_NOT_METRICS = ('step', 'time', 'data_time')


def main_compare_runs(
    argv: Sequence[str] | None = None, prog: str = 'tools/compare_runs.py'
) -> int:
    """Compare trainings as the command line says and return the exit code."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Compare trainings by what they left in their work dirs: their metrics, the '
        'time of an iteration and memory as a table (compare.md, compare.csv), and curves of the '
        'loss and of one metric (compare_loss.png, compare_METRIC.png). What a training wrote '
        'before and after it was resumed is put together.',
    )
    add = parser.add_argument
    add(
        'runs',
        nargs='+',
        metavar='[NAME=]WORK_DIR',
        help='of any mm project; several of one NAME are its seeds, and the curves show their mean',
    )
    add('--metric', help='of the curves, e.g. coco/bbox_mAP (default: the first that all have)')
    add('--out', type=Path, default=Path('.'), metavar='DIR', help='default: the current folder')
    args = parser.parse_args(sys.argv[1:] if argv is None else argv)
    return exit_code(lambda: _compare(args), prog)


def _compare(args: argparse.Namespace) -> None:
    named = [_named(text) for text in args.runs]
    runs = [_read(name, folder) for name, folder in named]
    names = [run.name for run in runs]
    for run, (name, _) in zip(runs, named, strict=True):
        if name is None and names.count(run.name) > 1:
            run.name = str(run.work_dir)
    shared = [name for name in _metrics(runs[0]) if all(name in _metrics(run) for run in runs)]
    metric = args.metric or next(iter(shared), None)
    if args.metric and not any(args.metric in _metrics(run) for run in runs):
        known = sorted({name for run in runs for name in _metrics(run)})
        raise UserError(f'--metric: no run has {args.metric}; there are {", ".join(known)}')
    rows = [_row(run, metric) for run in runs]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = markdown(columns, [{key: _shown(value) for key, value in row.items()} for row in rows])
    print(text)
    files = {'compare.md': text.encode(), 'compare.csv': to_csv(rows, digits=None)}
    files['compare_loss.png'] = png(plot_losses(runs))
    if metric is not None:
        files[f'compare_{metric.replace("/", "_")}.png'] = png(plot_metric(runs, metric))
    for path in write_all(args.out, files):
        print(path)


def _named(text: str) -> tuple[str | None, str]:
    name, equals, folder = text.partition('=')
    # A folder may have a '=' in its name.
    return (None, text) if not equals or Path(text).is_dir() else (name, folder)


def _read(name: str | None, folder: str) -> Run:
    try:
        return read_run(folder, name)
    except FileNotFoundError as error:
        raise UserError(str(error)) from error


def _metrics(run: Run) -> dict[str, float]:
    """The last evaluation's."""
    last = run.val[-1] if run.val else {}
    return {
        name: value
        for name, value in last.items()
        if isinstance(value, (int, float)) and name not in _NOT_METRICS
    }


def _row(run: Run, metric: str | None) -> dict[str, Any]:
    row: dict[str, Any] = {'run': run.name, 'iterations': run.train[-1]['iter']}
    row |= _metrics(run)
    if metric is not None:
        values = [(record[metric], record['step']) for record in run.val if metric in record]
        best = max(values, default=(None, None))
        row |= {f'highest {metric}': best[0], 'at step': best[1]}
    row['s/iteration'] = run.train_seconds / run.train[-1]['iter']
    row['peak memory (MB)'] = run.peak_memory
    return row


def _shown(value: Any) -> Any:
    return f'{value:.4g}' if isinstance(value, float) else value
