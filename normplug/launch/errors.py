"""The user's mistakes, told apart from our bugs."""

from __future__ import annotations

import sys
from collections.abc import Callable

__all__ = ['UserError', 'exit_code']


class UserError(Exception):
    """A mistake in the command line, config, data or checkpoint.

    The message names the config key or the file and says what to do; no traceback is needed.
    """


def exit_code(tool: Callable[[], None], name: str) -> int:
    """Run ``tool`` and return its exit code: 0, or 2 with one message on stderr for a UserError.

    Every other exception is a bug and passes through with its traceback.
    """
    try:
        tool()
    except UserError as error:
        print(f'{name}: error: {error}', file=sys.stderr)
        return 2
    return 0
