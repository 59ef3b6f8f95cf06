"""The files of a report: whole or absent."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from normplug.errors import UserError
from normplug.files import write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ['png', 'refuse_existing', 'write_all']


def png(figure: Figure) -> bytes:
    """The picture as a file's content."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, format='png')
    return buffer.getvalue()


def refuse_existing(folder: Path, names: Iterable[str], overwrite: bool) -> None:
    """Raise a UserError if one of the files is in ``folder``, unless ``overwrite``."""
    existing = [str(folder / name) for name in names if (folder / name).exists()]
    if existing and not overwrite:
        raise UserError(
            f'{", ".join(existing)} exists; name another folder by --out, or add --overwrite'
        )


def write_all(folder: Path, files: Mapping[str, bytes], option: str = '--out') -> list[Path]:
    """Write ``files`` by name into ``folder``, replacing what an earlier run left.

    Args:
        folder: it is made if it is not there.
        files: name → content.
        option: of the command line that names the folder.

    Raises:
        WriteError: a file cannot be written.
    """
    paths = []
    for name, data in files.items():
        write(folder / name, data, option)
        paths.append(folder / name)
    return paths
