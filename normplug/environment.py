"""The environment report of `python -m normplug`: installed packages and those that conflict.

The checks take versions as arguments, a mapping of distribution name to version, or to None for a
package that is not installed. `UNKNOWN` stands for an importable package without metadata, whose
version cannot be checked. torch and mmengine are always installed here: without them
`_requirements` stops the import of the package.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Mapping
from typing import Literal, NamedTuple

__all__ = [
    'Operators',
    'Problem',
    'check',
    'find_operators',
    'gpus',
    'installed_versions',
    'report',
]

UNKNOWN = 'unknown'
TORCH_FLOOR = '2.7'  # as in pyproject.toml
Versions = Mapping[str, 'str | None']

# Import name, and the distributions that may provide it.
_PACKAGES = {
    'torch': ('torch', ['torch']),
    'torchvision': ('torchvision', ['torchvision']),
    'numpy': ('numpy', ['numpy']),
    'setuptools': ('setuptools', ['setuptools']),
    'mmengine': ('mmengine', ['mmengine', 'mmengine-lite']),
    'mmcv': ('mmcv', ['mmcv', 'mmcv-lite', 'mmcv-full']),
    'mmdet': ('mmdet', ['mmdet']),
    'mmsegmentation': ('mmseg', ['mmsegmentation']),
    'mmpretrain': ('mmpretrain', ['mmpretrain']),
    'mmaction2': ('mmaction', ['mmaction2']),
    'normplug': ('normplug', ['normplug']),
}
_USERS_OF_MMCV = ('mmdet', 'mmsegmentation', 'mmpretrain', 'mmaction2')
# The wheel of mmcv without compiled operators: nothing to build, hence nothing that can fail.
_INSTALL_MMCV = 'pip uninstall -y mmcv mmcv-full && pip install "mmcv-lite>=2.0.0rc4,<2.2"'


class Problem(NamedTuple):
    """One line of the report; training cannot work with an `error`."""

    level: Literal['error', 'warning', 'info']
    message: str
    command: str

    def __str__(self) -> str:
        """Return the line to print."""
        return f'{self.level}: {self.message} Run: {self.command}'


class Operators(NamedTuple):
    """Where mmcv.ops gets its operators; if that fails, why."""

    source: Literal['compiled', 'torchvision', 'none']
    failure: str | None = None


def installed_versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages used here, without importing them."""
    versions = {'python': platform.python_version()}
    for name, (module, distributions) in _PACKAGES.items():
        versions[name] = UNKNOWN if importlib.util.find_spec(module) else None
        for distribution in distributions:
            try:
                versions[name] = importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                continue
            break
    return versions


def find_operators(versions: Versions) -> Operators:
    """Try the operators that mmcv.ops would use here."""
    from normplug.compat import mmcv_ext
    from normplug.compat.ops import kernels

    if versions['mmcv'] is None:
        return Operators('none')
    try:
        if mmcv_ext.compiled_extension():
            importlib.import_module('mmcv._ext')
            return Operators('compiled')
        kernels.torchvision_ops()
    except (ImportError, OSError, RuntimeError) as error:
        source = 'compiled' if mmcv_ext.compiled_extension() else 'none'
        return Operators(source, str(error.__cause__ or error).splitlines()[0])
    return Operators('torchvision')


def check(versions: Versions, operators: Operators) -> list[Problem]:
    """Return all conflicts, errors first."""
    problems = [
        *_check_core(versions),
        *_check_mmcv(versions),
        *_check_operators(versions, operators),
        *_check_optional(versions),
    ]
    return sorted(problems, key=lambda problem: ['error', 'warning', 'info'].index(problem.level))


def _below(version: str | None, bound: str) -> bool | None:
    """Return whether `version` < `bound`; None if there is no version to compare."""
    from mmengine.utils import digit_version

    if version in (None, UNKNOWN):
        return None
    return digit_version(version) < digit_version(bound)


def _check_core(versions: Versions) -> list[Problem]:
    problems = []
    if _below(versions['torch'], TORCH_FLOOR):
        message = (
            f'torch {versions["torch"]} is older than {TORCH_FLOOR}, the oldest that is supported.'
        )
        problems.append(Problem('error', message, 'pip install --upgrade torch torchvision'))
    if versions['setuptools'] is None or _below(versions['setuptools'], '82') is False:
        message = (
            f'setuptools is {versions["setuptools"] or "not installed"}: without its pkg_resources '
            "(gone since 82) mmengine cannot read a `_base_ = 'mmdet::...'` config."
        )
        problems.append(Problem('error', message, 'pip install "setuptools<82"'))
    if _below(versions['numpy'], '2.4') is False:
        message = (
            f"numpy {versions['numpy']} is newer than tested; Triton's interpreter needs < 2.4."
        )
        problems.append(Problem('warning', message, 'pip install "numpy<2.4"'))
    return problems


def _check_mmcv(versions: Versions) -> list[Problem]:
    users = [name for name in _USERS_OF_MMCV if versions[name]]
    if versions['mmcv'] is None and users:
        message = f'{", ".join(users)} cannot be imported without mmcv.'
        return [Problem('error', message, 'pip install "mmcv-lite>=2.0.0rc4,<2.2"')]
    if versions['mmcv'] is None or _below(versions['mmcv'], '2.2') is not False:
        return []
    return [
        Problem(
            'error',
            f'{name} {versions[name]} refuses mmcv {versions["mmcv"]}: it asserts mmcv < 2.2.',
            _INSTALL_MMCV,
        )
        for name, above in (('mmdet', '3.3.1'), ('mmsegmentation', '1.2.3'), ('mmaction2', '1.2.1'))
        if _below(versions[name], above)
    ]


def _check_operators(versions: Versions, operators: Operators) -> list[Problem]:
    if operators.failure is None:
        return []
    if operators.source == 'compiled':
        message = f"mmcv's compiled operators do not load: {operators.failure}."
        return [Problem('error', message, _INSTALL_MMCV)]
    torch = (versions['torch'] or UNKNOWN).split('+')[0]
    if versions['torchvision'] is None:
        message, command = (
            'torchvision, which mmcv.ops needs here, is not installed.',
            'pip install',
        )
    else:
        message = (
            f'torchvision {versions["torchvision"]} does not fit torch {versions["torch"]} '
            f'({operators.failure}).'
        )
        command = 'pip install --force-reinstall'
    return [Problem('error', message, f'{command} "torch=={torch}" torchvision')]


def _check_optional(versions: Versions) -> list[Problem]:
    floors = {'mmdet': '3.3', 'mmsegmentation': '1.2.2', 'mmpretrain': '1.2', 'mmaction2': '1.2'}
    return [
        Problem(
            'info',
            f'{name} is not installed: its models are not available.',
            f'pip install "{name}>={floor}"',
        )
        for name, floor in floors.items()
        if versions[name] is None
    ]


def report() -> tuple[str, bool]:
    """Return the text of the report, and whether training can work."""
    versions = installed_versions()
    operators = find_operators(versions)
    problems = check(versions, operators)
    works = all(problem.level != 'error' for problem in problems)
    rows = {name: version or 'not installed' for name, version in versions.items()}
    rows |= {
        'mmcv.ops': _describe(versions, operators),
        'device': _device(),
        'backend': _backend(),
        'norm types': ', '.join(_norm_types()) or 'none',
    }
    lines = [f'{name:<16}{value}' for name, value in rows.items()]
    lines += ['', *map(str, problems)] if problems else []
    lines += [
        '',
        'Training can work here.' if works else 'Training cannot work here: see the errors.',
    ]
    return '\n'.join(lines), works


def _describe(versions: Versions, operators: Operators) -> str:
    if versions['mmcv'] is None:
        return 'none (mmcv is not installed)'
    if operators.failure:
        return 'none (see the error below)'
    if operators.source == 'compiled':
        return "mmcv's own compiled operators"
    users = 'mmdet, mmseg, mmpretrain, mmaction'
    return f'torchvision and plain torch (what {users} use; others are refused)'


def gpus() -> list:
    """torch's properties of the GPUs that are visible."""
    import torch

    return [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]


def _device() -> str:
    import torch

    if not torch.cuda.is_available():
        return f'CPU, threads: {torch.get_num_threads()}'
    names = ', '.join(f'{gpu.name} ({gpu.total_memory / 2**30:.0f} GiB)' for gpu in gpus())
    return f'{names}, CUDA {torch.version.cuda}'


def _backend() -> str:
    import torch

    from normplug.ops import get_backend

    name = get_backend()
    if name == 'eager':
        return 'eager: normalizers run as plain torch'
    if torch.cuda.is_available():
        compiler = 'Triton'
        found = importlib.util.find_spec('triton') is not None
    else:
        compiler = os.environ.get('CXX', 'g++')  # as Inductor chooses it on Linux
        found = shutil.which(compiler) is not None
    if found:
        return f'{name}: normalizers are compiled on first use, by {compiler}'
    result = 'normalizers run as plain torch' if name == 'auto' else 'the first forward will fail'
    return f'{name}: {result}, for want of {compiler}'


def _norm_types() -> list[str]:
    from mmengine.registry import MODELS

    return sorted(
        name
        for name, norm in MODELS.module_dict.items()
        if norm.__module__.startswith('normplug.norms.')
    )
