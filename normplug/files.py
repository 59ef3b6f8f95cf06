"""Write files whole or not at all, even if the machine dies, and check the place for them."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from normplug.errors import UserError

__all__ = ['WriteError', 'check_room', 'check_writable', 'remove_leftovers', 'write']

_LEFTOVER = '.normplug-tmp'


class WriteError(UserError, OSError):
    """A file could not be written; what stood in its place is as it was."""

    def __str__(self) -> str:
        """The message, without the number of the error."""
        return self.strerror


def write(path: str | Path, data: bytes, asked_by: str = '') -> None:
    """Write ``data`` to ``path``: readers see the old file or the new one, nothing between.

    The bytes go to a temporary file in the same folder, and it takes the name once they are on
    the disk. ``path``'s folder is made if it is missing.

    Args:
        path: the file.
        data: what it is to hold.
        asked_by: the option or config key that names it, for the message.

    Raises:
        WriteError: the disk is full, the folder is not writable, ... The temporary file is gone.
    """
    path = Path(path)
    # With the process's number, so that two trainings in one folder do not mix their bytes.
    temporary = path.with_name(f'.{path.name}.{os.getpid()}{_LEFTOVER}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, 'wb') as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        message = _failed(path, len(data), error)
        prefix = f'{asked_by}: ' if asked_by else ''
        raise WriteError(error.errno, prefix + message) from error


def _sync_folder(folder: Path) -> None:
    """Make a renaming last: the name is an entry of the folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot; the file itself is safe
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(path: Path, size: int, error: OSError) -> str:
    place = next(folder for folder in path.parents if folder.is_dir())
    return (
        f'{path} cannot be written: {error.strerror} ({size / 1e6:.1f} MB to write, '
        f'{shutil.disk_usage(place).free / 1e6:.1f} MB free)'
    )


def remove_leftovers(folder: str | Path) -> list[str]:
    """Remove the temporary files of killed trainings from ``folder``; return their names.

    That of another process that lives on this machine stays: it may be writing it.
    """
    names = []
    for path in Path(folder).glob(f'.*{_LEFTOVER}'):
        if _is_other_process(path.name.removesuffix(_LEFTOVER).rpartition('.')[2]):
            continue
        path.unlink(missing_ok=True)
        names.append(path.name)
    return names


def _is_other_process(number: str) -> bool:
    if not number.isdecimal() or int(number) == os.getpid():
        return False
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        pass
    return True


def check_writable(folder: str | Path) -> None:
    """Check that ``folder``, or where it is missing the one to make it in, can be written to.

    Raises:
        NotADirectoryError: a part of the path is a file.
        PermissionError: no permission, or the file system is read-only.
    """
    place = _existing(folder)
    if not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f'{place} is a file, not a folder')
    if not os.access(
        place, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids
    ):
        raise PermissionError(
            errno.EACCES, f'{place} is not writable (no permission, or a read-only file system)'
        )


def check_room(folder: str | Path, size: int) -> None:
    """Check that ``size`` bytes are free where ``folder`` is or will be.

    Raises:
        OSError: they are not.
    """
    place = _existing(folder)
    free = shutil.disk_usage(place).free
    if free < size:
        raise OSError(
            errno.ENOSPC,
            f'{free / 1e6:.1f} MB are free in {place}, and one checkpoint needs about '
            f'{size / 1e6:.1f} MB; make room or name a folder on another disk',
        )


def _existing(folder: str | Path) -> Path:
    path = Path(folder).absolute()
    return next(p for p in (path, *path.parents) if os.path.lexists(p))
