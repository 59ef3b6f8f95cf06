"""Packages of a registry as files: by name, version and hash; nothing of them is installed."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from normplug.errors import UserError

__all__ = ['DownloadError', 'Package', 'fetch']


class DownloadError(UserError, OSError):
    """A package could not be had, or is not the one that was meant."""

    __str__ = Exception.__str__


@dataclass(frozen=True)
class Package:
    """A file of a registry.

    Attributes:
        index: ``'pypi'`` or ``'npm'``.
        file: its name there.
        sha256: of the file, in hexadecimal digits.
        licence: what the package says about itself; it may say nothing about its data.
    """

    index: str
    name: str
    version: str
    file: str
    sha256: str
    licence: str

    def __str__(self) -> str:
        """As a person names it: with its index and version."""
        return f'{self.index} {self.name} {self.version}'


def fetch(package: Package, folder: Path) -> Path:
    """Return the package's file in ``folder``; download it if it is not there.

    The registry is the one that pip and npm are configured for.

    Raises:
        DownloadError: the tool is missing or fails; the file has another hash.
    """
    path = folder / package.file
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Within the folder, so that only a whole file gets the name.
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            _download(package, temporary)
            found = Path(temporary, package.file)
            if not found.exists():
                others = sorted(p.name for p in Path(temporary).iterdir())
                raise DownloadError(f'{package}: expected {package.file}, got {others}')
            _check(package, found)
            found.replace(path)
    _check(package, path)
    return path


def _download(package: Package, folder: str) -> None:
    if package.index == 'npm':
        tool = shutil.which('npm')
        if tool is None:
            raise DownloadError(f'{package}: npm is not installed; {_by_hand(package)}')
        command = [tool, 'pack', f'{package.name}@{package.version}', '--pack-destination', folder]
    else:
        command = [sys.executable, '-m', 'pip', 'download', '--no-deps', '--only-binary', ':all:']
        command += ['--dest', folder, f'{package.name}=={package.version}']
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()][-3:]
        raise DownloadError(
            f'{package}: {" ".join(command[:4])} … failed:\n' + '\n'.join(last) + '\n'
            f'With a network it works by itself; {_by_hand(package)}'
        )


def _by_hand(package: Package) -> str:
    return f'or put {package.file} into the folder of --packages yourself'


def _check(package: Package, path: Path) -> None:
    with path.open('rb') as file:
        digest = hashlib.sha256()
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    if digest.hexdigest() != package.sha256:
        raise DownloadError(
            f'{path} is not {package}: its SHA-256 is {digest.hexdigest()}, not '
            f'{package.sha256}. Remove it and run this again'
        )
