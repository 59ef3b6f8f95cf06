"""Evaluate a checkpoint: ``python tools/test.py CONFIG CHECKPOINT`` (see ``--help``)."""

import sys
from collections.abc import Sequence

from normplug.launch.cli import main_test


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, or 2 after an error by the user."""
    return main_test(argv)


if __name__ == '__main__':
    sys.exit(main())
