"""Whitened networks beside batch norm: ``python tools/whitened_networks.py`` (see ``--help``)."""

import sys
from collections.abc import Sequence

from normplug.experiments.whitened.cli import main_whitened_networks


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, or 2 after an error by the user."""
    return main_whitened_networks(argv)


if __name__ == '__main__':
    sys.exit(main())
