"""Deploy a trained model: ``python tools/deploy.py CONFIG CHECKPOINT OUT_DIR`` (see ``--help``)."""

import sys
from collections.abc import Sequence

from normplug.deploy.cli import main_deploy


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, or 2 after an error by the user."""
    return main_deploy(argv)


if __name__ == '__main__':
    sys.exit(main())
