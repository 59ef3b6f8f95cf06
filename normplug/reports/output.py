"""The files of a report: whole or absent."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from normplug.files import write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ['png', 'write_all']


def png(figure: Figure) -> bytes:
    """The picture as a file's content."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, format='png')
    return buffer.getvalue()


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
