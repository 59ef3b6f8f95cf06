"""The command line of tools/make_digits.py and of `python -m normplug make-digits`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from normplug.errors import UserError

from .build import FORMATS, DigitsSettings, build_digits
from .light import Light
from .scene import SceneSettings

__all__ = ['main_make_digits']


def main_make_digits(argv: Sequence[str] | None = None, prog: str = 'tools/make_digits.py') -> int:
    """Parse the command line and build; exits with 2 and a message on bad input."""
    default = DigitsSettings()
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Write handwritten digits on photographs in the formats that the mm data sets '
        'read.',
    )
    add = parser.add_argument
    add('--out', type=Path, default=Path('work_dirs/data/digits'), help='(default: %(default)s)')
    add(
        '--formats',
        nargs='+',
        default=['coco', 'classification'],
        metavar='FORMAT',
        help=f'any of {", ".join(FORMATS)} (default: coco classification)',
    )
    add('--seed', type=int, default=default.seed, help='(default: %(default)s)')
    add(
        '--size',
        type=int,
        default=default.scene.size,
        help='side in pixels (default: 128); crops and clips have half of it',
    )
    add(
        '--train',
        type=int,
        default=default.train,
        help='images; clips: half as many (default: %(default)s)',
    )
    add('--val', type=int, default=default.val, help='images, or clips (default: %(default)s)')
    add(
        '--jpeg',
        nargs=2,
        type=int,
        metavar=('LOW', 'HIGH'),
        help='with the light, compress each picture as a JPEG of a quality between these '
        '(default: none)',
    )
    add(
        '--no-light',
        action='store_true',
        help='one light in all pictures: the old scenes; cityscapes_day and cityscapes_night '
        'always have one',
    )
    add('--force', action='store_true', help='replace what was written with other settings')
    args = parser.parse_args(argv)
    if args.jpeg and args.no_light:
        parser.error('--jpeg is of the light: leave out --no-light')
    light = Light(jpeg=args.jpeg and tuple(args.jpeg))
    try:
        scene = SceneSettings(size=args.size, light=None if args.no_light else light)
        settings = DigitsSettings(args.seed, args.train, args.val, scene)
        build_digits(args.out, args.formats, settings, args.force)
    except UserError as error:
        parser.error(str(error))
    return 0
