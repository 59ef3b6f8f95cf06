"""Check the normalizers on this machine's GPU: ``python tools/gpu_check.py`` (see ``--help``)."""

import sys
from collections.abc import Sequence

from normplug.gpu_check.cli import main_gpu_check


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0; 1 if a check failed; 2 after an error by the user."""
    return main_gpu_check(argv)


if __name__ == '__main__':
    sys.exit(main())
