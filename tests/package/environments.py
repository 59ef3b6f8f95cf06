"""Environments made from this one without a network: the same stack, but for what is left out."""

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

# Import name → distribution of the packages that an environment may lack.
MM = {
    'mmcv': 'mmcv',
    'mmdet': 'mmdet',
    'mmseg': 'mmsegmentation',
    'mmpretrain': 'mmpretrain',
    'mmaction': 'mmaction2',
}


def environment_without(folder: Path, modules: set[str]) -> Path:
    """Make a virtual environment of links to all that is installed here but `modules`.

    The metadata of their distributions is left out too: it is as if they were never installed.

    Returns:
        The environment's Python.
    """
    venv.create(folder, symlinks=True)
    (site,) = folder.glob('lib/python*/site-packages')
    left_out = modules | {
        Path(file).parts[0]
        for module in modules
        for file in _files(MM.get(module, module))
        if Path(file).parts[0] not in ('..', '__pycache__')
    }
    paths = sysconfig.get_paths()
    for source in {Path(paths['purelib']), Path(paths['platlib'])}:
        for entry in source.iterdir():
            if entry.name not in left_out:
                (site / entry.name).symlink_to(entry)
    return folder / 'bin/python'


def _files(distribution: str) -> list[str]:
    try:
        return [str(file) for file in importlib.metadata.files(distribution) or []]
    except importlib.metadata.PackageNotFoundError:
        return []


def run(python: Path, *args: str | Path, cwd: Path, returncode: int = 0) -> str:
    """Run `python` with `args` in `cwd`; return its output, stderr included.

    Raises:
        AssertionError: it ended with another exit code.
    """
    # This repository must not be found by way of the surroundings.
    kept = {k: v for k, v in os.environ.items() if not k.startswith(('PYTHON', 'PYTEST'))}
    done = subprocess.run(
        [str(python), *map(str, args)],
        cwd=cwd,
        env=kept | {'OMP_NUM_THREADS': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == returncode, done.stdout
    return done.stdout


def build_wheel(folder: Path) -> Path:
    """Build the wheel of this repository into `folder`; its build backend comes from the index."""
    root = Path(__file__).parents[2]
    build = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--wheel-dir', folder]
    run(build[0], *build[1:], root, cwd=root)
    (wheel,) = folder.glob('normplug-*.whl')
    return wheel
