"""The command line of tools/plot_ratios.py."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from normplug.errors import exit_code

from .figures import plot_evolution, plot_ratios
from .output import png, refuse_existing, write_all
from .ratios import Ratios, ratio_rows, read_evolution, read_ratios
from .tables import to_csv

__all__ = ['main_plot_ratios']


def main_plot_ratios(argv: Sequence[str] | None = None, prog: str = 'tools/plot_ratios.py') -> int:
    """Plot as the command line says and return the exit code."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Plot the ratios of SN, SSN and SW. Of a checkpoint: NAME_ratios.png, a bar '
        'for each layer, and NAME_ratios.csv. Of the work dir of a run: ratios.png of its end, '
        'ratios_evolution.png over the iterations, and ratios.csv.',
    )
    parser.add_argument('source', help='a checkpoint, or the work dir of a run')
    parser.add_argument('--out', metavar='DIR', help='default: where the checkpoint or run is')
    parser.add_argument('--overwrite', action='store_true', help='replace files that are there')
    args = parser.parse_args(argv)
    return exit_code(lambda: _plot(args), prog)


def _plot(args: argparse.Namespace) -> None:
    source = Path(args.source)
    is_run = source.is_dir()
    out = Path(args.out) if args.out else source if is_run else source.parent
    files = _of_run(read_evolution(source)) if is_run else _of_checkpoint(source)
    refuse_existing(out, files, args.overwrite)
    for path in write_all(out, {name: make() for name, make in files.items()}):
        print(path)


def _of_checkpoint(path: Path) -> dict[str, Callable[[], bytes]]:
    ratios = read_ratios(path)
    rows = ratio_rows({0: ratios})
    for row in rows:
        del row['iteration']
    return {
        f'{path.stem}_ratios.png': lambda: png(plot_ratios(ratios)),
        f'{path.stem}_ratios.csv': lambda: to_csv(rows),
    }


def _of_run(evolution: dict[int, Ratios]) -> dict[str, Callable[[], bytes]]:
    return {
        'ratios.png': lambda: png(plot_ratios(evolution[max(evolution)])),
        'ratios_evolution.png': lambda: png(plot_evolution(evolution)),
        'ratios.csv': lambda: to_csv(ratio_rows(evolution)),
    }
