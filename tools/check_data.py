"""Check all data of a config: ``python tools/check_data.py CONFIG`` (see ``--help``)."""

import sys
from collections.abc import Sequence

from normplug.preflight.cli import main_check_data


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, or 2 after errors in the data or the command line."""
    return main_check_data(argv)


if __name__ == '__main__':
    sys.exit(main())
