"""Let mmengine write checkpoints that are whole or absent."""

from __future__ import annotations

from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from normplug import files
from normplug.errors import TrainingError

__all__ = ['BACKEND', 'AtomicBackend', 'CheckpointWriteError', 'write']

BACKEND = 'normplug.atomic'


class CheckpointWriteError(TrainingError, OSError):
    """A checkpoint, or ``last_checkpoint``, could not be written; those before are whole."""


def write(path: str | Path, data: bytes) -> None:
    """Write as :func:`normplug.files.write` does, a file from which a training resumes.

    Raises:
        CheckpointWriteError: it cannot be written.
    """
    try:
        files.write(path, data)
    except files.WriteError as error:
        message = (
            f'{error}. The checkpoint before it is whole, and last_checkpoint names it: mend the '
            'cause, then continue with --resume'
        )
        raise CheckpointWriteError(error.errno, message) from error


class AtomicBackend(LocalBackend):
    """mmengine's storage backend for local files, with :func:`write` for what it writes."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes."""
        write(filepath, obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text."""
        write(filepath, obj.encode(encoding))


register_backend(BACKEND, AtomicBackend)
