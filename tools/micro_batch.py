"""Compare normalizers at small normalization batches: ``python tools/micro_batch.py``."""

import sys
from collections.abc import Sequence

from normplug.experiments.micro_batch.cli import main_micro_batch


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, or 2 after an error by the user."""
    return main_micro_batch(argv)


if __name__ == '__main__':
    sys.exit(main())
