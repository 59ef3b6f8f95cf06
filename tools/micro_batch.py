"""The table ``batch-size`` of tools/reproduce.py has replaced this: it says what to type."""

import sys
from collections.abc import Sequence

from normplug.experiments.micro_batch import main_micro_batch


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 2."""
    return main_micro_batch(argv)


if __name__ == '__main__':
    sys.exit(main())
