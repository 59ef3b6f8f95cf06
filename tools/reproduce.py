"""Reproduce a published table: ``python tools/reproduce.py TABLE`` (see ``--help``)."""

import sys
from collections.abc import Sequence

from normplug.experiments.reproduce.cli import main_reproduce


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, 1 if a row failed, 2 after an error by the user."""
    return main_reproduce(argv)


if __name__ == '__main__':
    sys.exit(main())
