"""The command line of tools/plot_batch_noise.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from normplug.errors import UserError, exit_code

from .figures import plot_batch_noise
from .output import png, refuse_existing, write_all
from .runs import read_scalars
from .tables import to_csv

__all__ = ['main_plot_batch_noise']


def main_plot_batch_noise(
    argv: Sequence[str] | None = None, prog: str = 'tools/plot_batch_noise.py'
) -> int:
    """Plot as the command line says and return the exit code."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Plot what BatchNoiseHook logged in a run: batch_noise.png, the noise of the '
        'batch statistics of each layer at the end beside the law, and ζ; batch_noise.csv, all '
        'quantities at all measurements.',
    )
    parser.add_argument('work_dir', help='the work dir of the run')
    parser.add_argument('--out', metavar='DIR', help='default: the work dir')
    parser.add_argument('--overwrite', action='store_true', help='replace files that are there')
    args = parser.parse_args(argv)
    return exit_code(lambda: _plot(Path(args.work_dir), args.out, args.overwrite), prog)


def _plot(work_dir: Path, out: str | None, overwrite: bool) -> None:
    evolution = read_scalars(work_dir, 'batch_noise')
    if not evolution:
        raise UserError(
            f'{work_dir} has no */vis_data/scalars.json with records of BatchNoiseHook: train with '
            "custom_hooks=[dict(type='BatchNoiseHook')]"
        )
    folder = Path(out) if out else work_dir
    names = ('batch_noise.png', 'batch_noise.csv')
    refuse_existing(folder, names, overwrite)
    rows = [
        {'iteration': step, 'layer': layer, **found}
        for step, layers in evolution.items()
        for layer, found in layers.items()
    ]
    files = png(plot_batch_noise(evolution[max(evolution)])), to_csv(rows)
    for path in write_all(folder, dict(zip(names, files, strict=True))):
        print(path)
