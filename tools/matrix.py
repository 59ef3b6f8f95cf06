"""Run the tests on the oldest, the pinned and the newest versions: ``make matrix`` (hours, GBs).

Each row gets a virtual environment of its own in work_dirs/matrix, and is written to the table of
docs/matrix.md as soon as it is done; rows that were not run keep their old line.

    python tools/matrix.py --rows floor newest --slow
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
WORK = ROOT / 'work_dirs/matrix'
TABLE = ROOT / 'docs/matrix.md'
HEADER = """# Versions that the tests ran on

Written by `make matrix` (`tools/matrix.py`): one fresh environment a row, the rest of the stack as
in `tools/constraints.txt`. "fast" leaves out the tests that train a model or start processes.

| row | date | Python | torch | torchvision | numpy | mmengine | tests | passed | failed | skipped |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""
OUTCOMES = ('passed', 'failed', 'skipped')


class Row(NamedTuple):
    """A Python version and what differs from tools/constraints.txt (full requirements)."""

    python: str
    changes: tuple[str, ...] = ()


# The first row holds the floor that pyproject.toml declares; tests/package pins the two together.
ROWS = {
    'floor': Row('3.10', ('torch==2.7.0', 'torchvision==0.22.0')),
    'pinned': Row('3.11'),
    'pinned-py312': Row('3.12'),
    'newest': Row('3.12', ('torch==2.15.0', 'torchvision==0.29.2')),
    'numpy1': Row('3.11', ('numpy<2',)),
}


def main() -> int:
    """Run the rows; return 1 if an installation or a test failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rows', nargs='+', choices=ROWS, default=list(ROWS), metavar='ROW')
    parser.add_argument('--slow', action='store_true', help='the slow tests too')
    parser.add_argument('--keep', action='store_true', help='keep the environments (GBs each)')
    parser.add_argument('--jobs', default='auto', help='test processes (default: one a core)')
    args = parser.parse_args()
    failed = []
    for name in args.rows:
        print(f'== {name}: {ROWS[name]}', flush=True)
        try:
            cells = run_row(name, ROWS[name], args.slow, args.jobs)
        except subprocess.CalledProcessError as error:
            print(f'{name}: {error}', file=sys.stderr, flush=True)
            cells = None
        finally:
            if not args.keep:
                shutil.rmtree(WORK / name / 'venv', ignore_errors=True)
        if cells is None or cells['failed'] != '0':
            failed.append(name)
        if cells is not None:
            TABLE.write_text(with_row(TABLE.read_text() if TABLE.exists() else '', name, cells))
    print(f'failed: {", ".join(failed)}' if failed else 'every row passed', flush=True)
    return bool(failed)


def run_row(name: str, row: Row, slow: bool, jobs: str) -> dict[str, str]:
    """Install `row` into a new environment and test there; return the cells of its line.

    Raises:
        subprocess.CalledProcessError: the installation failed, or pytest could not run.
    """
    venv = WORK / name / 'venv'
    python = venv / 'bin/python'
    constraints = WORK / name / 'constraints.txt'
    constraints.parent.mkdir(parents=True, exist_ok=True)
    pinned = (ROOT / 'tools/constraints.txt').read_text()
    constraints.write_text(changed_constraints(pinned, row.changes))
    # The uv of the environment that runs this, or the one on the PATH.
    uv = shutil.which('uv', path=f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}')
    if uv is None:
        sys.exit('tools/matrix.py: error: there is no uv; run it by `make matrix`')
    # With pip, by which the tests build a wheel.
    call(uv, 'venv', '--quiet', '--clear', '--seed', '--python', row.python, venv)
    install = (uv, 'pip', 'install', '--quiet', '--python', python, '--constraint', constraints)
    call(*install, '--editable', '.[all]', 'setuptools')
    log = WORK / name / 'pytest.log'
    select = [] if slow else ['-m', 'not slow']
    command = [python, '-m', 'pytest', '-n', jobs, '-p', 'no:cacheprovider', *select]
    env = {**os.environ, 'OMP_NUM_THREADS': '1'}
    env.pop('PYTHONDONTWRITEBYTECODE', None)  # without cached bytecode each start takes seconds
    with log.open('w') as file:
        done = subprocess.run(command, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT)
    text = log.read_text()
    print('\n'.join(text.splitlines()[-15:]), f'\nfull log: {log}', flush=True)
    if done.returncode not in (0, 1):  # 1: some test failed
        done.check_returncode()
    return {
        'row': name,
        'date': datetime.date.today().isoformat(),
        **versions(python),
        'tests': 'all' if slow else 'fast',
        **outcomes(text),
    }


def call(*command: str | Path) -> None:
    """Run `command` in the repository; its output is the user's."""
    subprocess.run([str(part) for part in command], cwd=ROOT, check=True)


def changed_constraints(pinned: str, changes: tuple[str, ...]) -> str:
    """Return the constraints file `pinned` with each of `changes` in place of its line.

    Raises:
        ValueError: the file has no line for one of the packages.
    """
    lines = pinned.splitlines()
    for change in changes:
        name = _package(change)
        found = [number for number, line in enumerate(lines) if _package(line) == name]
        if len(found) != 1:
            raise ValueError(f'tools/constraints.txt has {len(found)} lines for {name}, not one')
        lines[found[0]] = change
    return '\n'.join(lines) + '\n'


def _package(requirement: str) -> str:
    return re.match(r'[\w.-]*', requirement)[0]


def versions(python: Path) -> dict[str, str]:
    """Return the versions that the environment of `python` really has."""
    names = ('torch', 'torchvision', 'numpy', 'mmengine')
    code = (
        'import platform; from importlib.metadata import version;'
        f'print(platform.python_version(), *map(version, {names}))'
    )
    done = subprocess.run([python, '-c', code], check=True, capture_output=True, text=True)
    return dict(zip(('Python', *names), done.stdout.split(), strict=True))


def outcomes(log: str) -> dict[str, str]:
    """Return the counts in the last line of pytest's output; errors count as failed."""
    counts = re.findall(r'(\d+) (\w+)', log.strip().splitlines()[-1])
    found = {word.removesuffix('s'): int(count) for count, word in counts}
    found['failed'] = found.get('failed', 0) + found.get('error', 0)
    return {outcome: str(found.get(outcome, 0)) for outcome in OUTCOMES}


def with_row(table: str, name: str, cells: Mapping[str, str]) -> str:
    """Return the document `table` with the line of row `name` put in or replaced, in our order.

    The sections after the table stay.
    """
    table, heading, rest = table.partition('\n## ')
    lines = {line.split(' | ')[0].removeprefix('| '): line for line in table.splitlines()}
    lines[name] = f'| {" | ".join(cells.values())} |'
    return HEADER + ''.join(f'{lines[row]}\n' for row in ROWS if row in lines) + heading + rest


if __name__ == '__main__':
    sys.exit(main())
