"""Precise BN for a checkpoint: ``python tools/batch_average.py CONFIG CHECKPOINT OUTPUT``."""

import sys
from collections.abc import Sequence

from normplug.launch.batch_average import main_batch_average


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, or 2 after an error by the user."""
    return main_batch_average(argv)


if __name__ == '__main__':
    sys.exit(main())
