"""Check the machine, and whether it can compile."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial

import torch

from normplug.bench.compilation import compilations, empty_cache, forget_compiled
from normplug.environment import gpus, installed_versions

from .checks import Check, FailedError, Setting, SkippedError
from .comparison import layer_of, run, tensors_of

__all__ = ['environment_checks']


def environment_checks(setting: Setting) -> Iterator[Check]:
    """The hardware and software of the machine."""
    yield Check('GPU', _gpu, gpus=1)
    yield Check('versions', _versions)
    yield Check('compiler', partial(_compiler, setting))


def _gpu() -> str:
    return '; '.join(
        f'{card.name}, {card.total_memory / 2**30:.0f} GiB, capability {card.major}.{card.minor}'
        for card in gpus()
    )


def _versions() -> str:
    versions = {k: v for k, v in installed_versions().items() if v}
    versions |= {'CUDA': torch.version.cuda or 'none', 'driver': _driver()}
    try:
        import triton

        versions['triton'] = triton.__version__
    except ImportError:
        versions['triton'] = 'none'
    return ', '.join(f'{name} {version}' for name, version in versions.items())


def _driver() -> str:
    command = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return 'unknown'
    return done.stdout.split('\n')[0].strip()


def _compiler(setting: Setting) -> str:
    if 'compiled' not in setting.backends:
        raise SkippedError('--backend eager compiles nothing')
    # Triton too builds its launcher by a C compiler.
    names = [os.environ.get('CC') or os.environ.get('CXX'), 'gcc', 'g++', 'clang', 'cc']
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    forget_compiled()
    before = compilations()
    shape = (2, 8, 6, 10)
    with empty_cache():
        x, dy = tensors_of(shape, 'float32', 'contiguous', setting.device)
        run(layer_of('SN', shape[1], 'compiled', setting.device), x, dy, True)
    made = compilations() - before
    if not made:
        raise FailedError(f'nothing was compiled; C compiler: {found or "none"}')
    return f'{made} graphs compiled; C compiler: {found or "none"}'
