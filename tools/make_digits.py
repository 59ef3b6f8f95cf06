"""Write handwritten digits on photographs in the formats that the mm data sets read.

python tools/make_digits.py --formats coco classification ade cityscapes cityscapes_night
"""

import argparse
import sys
from pathlib import Path

try:
    from normplug.data.build import FORMATS, DigitsError, DigitsSettings, build_digits
    from normplug.data.scene import SceneSettings
except ModuleNotFoundError as error:
    sys.exit(f"{error}; run `make setup`, or: pip install 'normplug[demo]'")


def main() -> None:
    """Parse the command line and build; exits with 2 and a message on bad input."""
    default = DigitsSettings()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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
    add('--size', type=int, default=default.scene.size, help='side in pixels (default: 128)')
    add('--train', type=int, default=default.train, help='images (default: %(default)s)')
    add('--val', type=int, default=default.val, help='images (default: %(default)s)')
    add('--force', action='store_true', help='replace what was written with other settings')
    args = parser.parse_args()
    try:
        scene = SceneSettings(size=args.size)
        settings = DigitsSettings(args.seed, args.train, args.val, scene)
        build_digits(args.out, args.formats, settings, args.force)
    except DigitsError as error:
        parser.error(str(error))


if __name__ == '__main__':
    main()
