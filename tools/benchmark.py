"""Measure the normalizers beside torch's batch norm: ``python tools/benchmark.py --quick``."""

import sys
from collections.abc import Sequence

from normplug.bench.cli import main_benchmark


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0; 1 if a layer computes something else; 2 after a user's error."""
    return main_benchmark(argv)


if __name__ == '__main__':
    sys.exit(main())
