"""Where a figure comes from: what every row of a report carries."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

__all__ = ['provenance']


def provenance(prog: str, argv: Sequence[str], device: str) -> dict[str, str | int]:
    """Command, commit, versions, machine, threads and date of this process.

    Args:
        prog: how the command was called.
        argv: its arguments.
        device: 'cpu' or 'cuda'.
    """
    row = {
        'command': shlex.join([*prog.split(), *argv]),
        'commit': _commit(),
        'date': datetime.date.today().isoformat(),
        'machine': _machine(device),
        'threads': torch.get_num_threads(),
        'python': platform.python_version(),
        'torch': torch.__version__,
        'normplug': version('normplug'),
    }
    return row | ({'cuda': torch.version.cuda or ''} if device != 'cpu' else {})


def _commit() -> str:
    """The commit of this checkout, with '-dirty' after changes; '' where there is none."""
    folder = Path(__file__).parent
    try:
        # Not that of another repository around an installed package.
        _git(folder, 'ls-files', '--error-unmatch', Path(__file__).name)
        return _git(folder, 'describe', '--always', '--dirty', '--abbrev=12', '--match=')
    except (OSError, subprocess.CalledProcessError):
        return ''


def _git(folder: Path, *args: str) -> str:
    done = subprocess.run(['git', '-C', folder, *args], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _machine(device: str) -> str:
    cpu = f'{os.cpu_count()} cores, {_processor()}'
    return cpu if device == 'cpu' else f'{torch.cuda.get_device_name()}, {cpu}'


def _processor() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return f'{platform.machine()} ({names[0]})' if names else platform.machine()
