"""The main job on embedded data, from nothing to a table and pictures: ``make demo``."""

import argparse
import sys

import normplug  # noqa: F401  first: it prepares mmcv for this torch
from normplug.errors import exit_code
from normplug.reports.demo import run_demo


def main() -> int:
    """Return the exit code: 0, or 2 where a step failed."""
    parser = argparse.ArgumentParser(prog='tools/demo.py', description=__doc__)
    parser.add_argument('--seeds', type=int, default=1, metavar='K', help='0 to K-1 (default: 1)')
    seeds = parser.parse_args().seeds
    if seeds < 1:
        parser.error(f'--seeds {seeds}: must be 1 or more')
    return exit_code(lambda: run_demo(seeds), 'tools/demo.py')


if __name__ == '__main__':
    sys.exit(main())
