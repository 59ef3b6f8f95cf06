"""Allow one training at a time in a work dir."""

from __future__ import annotations

import errno
import fcntl
import os
import os.path as osp
import socket
import time

from mmengine.dist import is_main_process

from normplug.errors import UserError

__all__ = ['LOCK_FILE', 'lock_work_dir']

LOCK_FILE = '.normplug-lock'
# A killed process keeps its lock until the last of its threads has ended.
_SECONDS_TO_DIE = 3.0
# Descriptors by (device, inode), open until the process ends: closing any descriptor of the file
# would release the process's lock.
_held: dict[tuple[int, int], int] = {}


def lock_work_dir(work_dir: str) -> list[str]:
    """Keep other trainings out of ``work_dir`` until this process ends, however it ends.

    Rank 0 does it for all ranks. The folder is made if it is missing. A process may lock the same
    folder again.

    Returns:
        A line for the log where the file system has no locks.

    Raises:
        UserError: another training holds the lock, or the file cannot be written.
    """
    if not is_main_process():
        return []
    path = osp.join(osp.abspath(work_dir), LOCK_FILE)
    try:
        if osp.exists(path) and _identity(os.stat(path)) in _held:
            return []
        os.makedirs(work_dir, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f'--work-dir: {path} cannot be written: {error.strerror}') from error
    try:
        # A record lock, not flock: a data loader's worker does not inherit it, and so cannot keep
        # it after this process was killed.
        _lock(descriptor, time.monotonic() + _SECONDS_TO_DIE)
    except OSError as error:
        owner = os.pread(descriptor, 300, 0).decode(errors='replace').strip()
        os.close(descriptor)
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            return [
                f'work_dir {work_dir} cannot be locked ({error.strerror}): nothing keeps a second '
                'training out of it'
            ]
        raise UserError(
            f'another training runs in work_dir {work_dir} ({owner or "just started"}); wait for '
            'it, or choose another --work-dir'
        ) from error
    _held[_identity(os.fstat(descriptor))] = descriptor
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f'process {os.getpid()} on {socket.gethostname()}\n'.encode(), 0)
    return []


def _lock(descriptor: int, deadline: float) -> None:
    while True:
        try:
            return fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
