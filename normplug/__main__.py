"""`python -m normplug`: the environment report; `python -m normplug run SCRIPT ...`: a script."""

from __future__ import annotations

import argparse
import os
import runpy
import sys

__all__ = ['main']


def main(argv: list[str] | None = None) -> int:
    """Parse `argv` (default: the command line's) and return the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m normplug',
        description='Without a command: report on the environment; exit 1 if training cannot work.',
    )
    commands = parser.add_subparsers(dest='command', metavar='{run}')
    run = commands.add_parser(
        'run',
        help='run a script that imports mmcv.ops before it reads custom_imports',
        description='Run SCRIPT as `python SCRIPT ARGS` would, with normplug imported first: for '
        "mmdet's own tools/test.py and the like.",
    )
    run.add_argument('script', metavar='SCRIPT')
    run.add_argument('args', metavar='ARGS', nargs=argparse.REMAINDER)
    options = parser.parse_args(argv)
    if options.command is None:
        from normplug.report import report

        text, works = report()
        print(text)
        return 0 if works else 1
    if not os.path.isfile(options.script):
        run.error(f'there is no script {options.script}')
    _run(options.script, options.args)
    return 0


def _run(script: str, args: list[str]) -> None:
    # Operators, checkpoint loading and norm types are in place: importing the package saw to it.
    sys.argv = [script, *args]
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
    runpy.run_path(script, run_name='__main__')


if __name__ == '__main__':
    sys.exit(main())
