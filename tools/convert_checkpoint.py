"""Convert a checkpoint: ``python tools/convert_checkpoint.py SOURCE OUTPUT`` (see ``--help``)."""

import sys
from collections.abc import Sequence

from normplug.checkpoints.cli import main_convert


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, or 2 after an error by the user."""
    return main_convert(argv)


if __name__ == '__main__':
    sys.exit(main())
