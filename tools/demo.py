"""The main job on embedded data, from nothing to a table and pictures: ``make demo``."""

import sys

import normplug  # noqa: F401  first: it prepares mmcv for this torch
from normplug.errors import exit_code
from normplug.reports.demo import run_demo


def main() -> int:
    """Return the exit code: 0, or 2 where a step failed."""
    return exit_code(run_demo, 'tools/demo.py')


if __name__ == '__main__':
    sys.exit(main())
