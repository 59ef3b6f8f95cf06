"""What ends a command without being a bug, and how: one message, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch.distributed as dist
from mmengine.dist import is_distributed

__all__ = ['NormplugError', 'TrainingError', 'UnsuitableModelError', 'UserError', 'exit_code']


class NormplugError(Exception):
    """The root of what is no bug; the message says all: what is wrong, where, what to do.

    Attributes:
        exit_code: with which a command ends.
        prefix: what stands before the message.
    """

    exit_code = 1
    prefix = ''


class UserError(NormplugError):
    """A mistake in the command line, config, data or checkpoint.

    The message names the config key or the file.
    """

    exit_code = 2
    prefix = 'error: '


class TrainingError(NormplugError):
    """A training cannot go on; the message also says what is safe."""

    prefix = 'training stopped: '


class UnsuitableModelError(TrainingError, ValueError):
    """A hook of the config has nothing to do in the model, or cannot do it."""


def exit_code(tool: Callable[[], object], name: str) -> int:
    """Run ``tool`` and return its exit code: 0, or that of a NormplugError.

    Its message goes to stderr, without traceback; of the ranks of a process group, one prints it.
    Every other exception is a bug and passes through.
    """
    try:
        tool()
    except NormplugError as error:
        if _is_first_to_tell(str(error)):
            print(f'{name}: {error.prefix}{error}', file=sys.stderr)
        return error.exit_code
    return 0


def _is_first_to_tell(message: str) -> bool:
    """Whether no other rank has told the same, as all do where the config is wrong.

    Asked from the process group's store, which unlike a collective waits for nobody.
    """
    if not is_distributed():
        return True
    try:
        return dist.distributed_c10d._get_default_store().add(f'normplug: {message}', 1) == 1
    except dist.DistError:  # the rank that kept the store is gone
        return True
