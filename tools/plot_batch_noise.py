"""Plot the noise of batch statistics: ``python tools/plot_batch_noise.py WORK_DIR``."""

import sys
from collections.abc import Sequence

from normplug.reports.plot_batch_noise import main_plot_batch_noise


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, or 2 after an error by the user."""
    return main_plot_batch_noise(argv)


if __name__ == '__main__':
    sys.exit(main())
