"""The user's mistakes, told apart from our bugs."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch.distributed as dist
from mmengine.dist import is_distributed

from normplug.errors import TrainingError

__all__ = ['UserError', 'exit_code']


class UserError(Exception):
    """A mistake in the command line, config, data or checkpoint.

    The message names the config key or the file and says what to do; no traceback is needed.
    """


def exit_code(tool: Callable[[], None], name: str) -> int:
    """Run ``tool`` and return its exit code.

    0; 2 with one message on stderr for a UserError; 1 with one for a training that cannot go on.
    Of the ranks of a process group, one prints it. Every other exception is a bug and passes
    through with its traceback.
    """
    try:
        tool()
    except UserError as error:
        if _is_first_to_tell(str(error)):
            print(f'{name}: error: {error}', file=sys.stderr)
        return 2
    except TrainingError as error:
        if _is_first_to_tell(str(error)):
            print(f'{name}: training stopped: {error}', file=sys.stderr)
        return 1
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
