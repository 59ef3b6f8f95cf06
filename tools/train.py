"""Train from a config: ``python tools/train.py CONFIG`` (see ``--help``)."""

import sys
from collections.abc import Sequence

from normplug.launch.cli import main_train


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, or 2 after an error by the user."""
    return main_train(argv)


if __name__ == '__main__':
    sys.exit(main())
