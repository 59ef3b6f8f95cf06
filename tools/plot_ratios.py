"""Plot the ratios of SN, SSN and SW: ``python tools/plot_ratios.py CHECKPOINT_OR_WORK_DIR``."""

import sys
from collections.abc import Sequence

from normplug.reports.plot_ratios import main_plot_ratios


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, or 2 after an error by the user."""
    return main_plot_ratios(argv)


if __name__ == '__main__':
    sys.exit(main())
