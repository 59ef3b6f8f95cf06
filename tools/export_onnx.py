"""Export to ONNX: ``python tools/export_onnx.py CONFIG CHECKPOINT OUT.onnx`` (see ``--help``)."""

import sys
from collections.abc import Sequence

from normplug.deploy.cli import main_export


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, or 2 after an error by the user."""
    return main_export(argv)


if __name__ == '__main__':
    sys.exit(main())
