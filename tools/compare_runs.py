"""Compare trainings: ``python tools/compare_runs.py WORK_DIR ...`` (see ``--help``)."""

import sys
from collections.abc import Sequence

from normplug.reports.compare import main_compare_runs


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, or 2 after an error by the user."""
    return main_compare_runs(argv)


if __name__ == '__main__':
    sys.exit(main())
