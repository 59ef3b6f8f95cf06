"""Write handwritten digits on photographs in the formats that the mm data sets read.

python tools/make_digits.py --formats coco classification ade cityscapes kinetics
"""

import sys
from collections.abc import Sequence

try:
    from normplug.data.cli import main_make_digits
except ModuleNotFoundError as error:
    sys.exit(f"{error}; run `make setup`, or: pip install 'normplug[demo]'")


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code; exits with 2 and a message on bad input."""
    return main_make_digits(argv)


if __name__ == '__main__':
    sys.exit(main())
