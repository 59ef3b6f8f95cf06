"""The command line of tools/plot_ratios.py."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from normplug.checkpoints.source import CheckpointError
from normplug.errors import UserError, exit_code
from normplug.files import WriteError, write

from .figures import plot_evolution, plot_ratios
from .ratios import Ratios, read_evolution, read_ratios, to_csv

__all__ = ['main_plot_ratios']


def main_plot_ratios(argv: Sequence[str] | None = None, prog: str = 'tools/plot_ratios.py') -> int:
    """Plot as the command line says and return the exit code."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Plot the ratios of SN and SSN. Of a checkpoint: NAME_ratios.png, a bar for '
        'each layer, and NAME_ratios.csv. Of the work dir of a run: ratios.png of its end, '
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
    try:
        files = _of_run(read_evolution(source)) if is_run else _of_checkpoint(source)
    except CheckpointError as error:
        raise UserError(str(error)) from error
    existing = [str(out / name) for name in files if (out / name).exists()]
    if existing and not args.overwrite:
        raise UserError(
            f'{", ".join(existing)} exists; name another folder by --out, or add --overwrite'
        )
    made = {name: make() for name, make in files.items()}
    for name, data in made.items():
        try:
            write(out / name, data)
        except WriteError as error:
            raise UserError(f'{out / name} cannot be written: {error.__cause__}') from error
        print(out / name)


def _of_checkpoint(path: Path) -> dict[str, Callable[[], bytes]]:
    ratios = read_ratios(path)
    table = _without_iteration(to_csv({0: ratios}))
    return {
        f'{path.stem}_ratios.png': partial(_picture, plot_ratios, ratios),
        f'{path.stem}_ratios.csv': table.encode,
    }


def _without_iteration(table: str) -> str:
    return ''.join(line.partition(',')[2] for line in table.splitlines(keepends=True))


def _of_run(evolution: dict[int, Ratios]) -> dict[str, Callable[[], bytes]]:
    return {
        'ratios.png': partial(_picture, plot_ratios, evolution[max(evolution)]),
        'ratios_evolution.png': partial(_picture, plot_evolution, evolution),
        'ratios.csv': to_csv(evolution).encode,
    }


def _picture(plot: Callable, values: dict) -> bytes:
    buffer = io.BytesIO()
    plot(values, buffer)
    return buffer.getvalue()
