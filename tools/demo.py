"""The main job on embedded data, from nothing to a table and pictures: ``make demo``."""

import sys

import normplug  # noqa: F401  first: it prepares mmcv for this torch
from normplug.data.build import DigitsError
from normplug.reports.demo import run_demo


def main() -> int:
    """Return the exit code: 0, or 2 where a step failed."""
    try:
        run_demo()
    except (RuntimeError, DigitsError) as error:
        print(f'tools/demo.py: error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
