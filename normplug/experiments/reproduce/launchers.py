"""How trainings and tests are started: one process, torchrun, or Slurm."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from normplug.errors import UserError

__all__ = ['Launcher', 'make_launcher']

_ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Launcher:
    """A way to start ``tools/train.py`` and ``tools/test.py``.

    Attributes:
        gpus: processes, one a GPU where there are GPUs.
        partition: of Slurm; None without it.
        env: variables that are added to the environment.
    """

    gpus: int = 1
    partition: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)

    def command(
        self, tool: str, name: str, files: Sequence[str], arguments: Sequence[str]
    ) -> list[str]:
        """Start ``tool``, 'train' or 'test', with its ``files`` and ``arguments``."""
        if self.partition is not None:
            script = [_script(f'slurm_{tool}.sh'), self.partition, name]
            return ['bash', *script, *files, *arguments]
        if self.gpus > 1:
            return ['bash', _script(f'dist_{tool}.sh'), *files, str(self.gpus), *arguments]
        start = [_script(f'{tool}.py')] if _is_checkout() else ['-m', 'normplug', tool]
        return [sys.executable, *start, *files, *arguments]


def make_launcher(gpus: int, kind: str, partition: str | None) -> Launcher:
    """The launcher of the command line.

    Raises:
        UserError: several processes without a checkout, or Slurm without a partition.
    """
    if (gpus > 1 or kind == 'slurm') and not _is_checkout():
        raise UserError(
            '--gpus, --launcher slurm: the scripts in tools/ start several processes, and this '
            'normplug was installed without them; run it from a checkout of its repository'
        )
    if kind == 'slurm':
        if not partition:
            raise UserError('--launcher slurm needs --partition, the partition to submit to')
        return Launcher(gpus, partition, {'GPUS': str(gpus)})
    if partition:
        raise UserError('--partition is for --launcher slurm')
    # The scripts look for a Python themselves.
    return Launcher(gpus, env={'PYTHON': sys.executable} if gpus > 1 else {})


def _is_checkout() -> bool:
    return (_ROOT / 'tools/dist_train.sh').is_file()


def _script(name: str) -> str:
    return os.path.relpath(_ROOT / 'tools' / name)
