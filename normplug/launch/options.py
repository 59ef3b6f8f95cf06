"""The command-line arguments that all tools with a config take."""

from __future__ import annotations

import argparse

from mmengine.config import DictAction

__all__ = ['add_config_arguments']


class _KeyValues(DictAction):
    """mmengine's, with an error instead of a traceback for what is not KEY=VALUE."""

    def __call__(self, parser, namespace, values, option_string=None):
        for value in values:
            if not value.partition('=')[1]:
                raise argparse.ArgumentError(self, f'{value!r} is not KEY=VALUE')
        super().__call__(parser, namespace, values, option_string)


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add CONFIG and ``--cfg-options``."""
    parser.add_argument('config', help='config file, or normplug::NAME')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_KeyValues,
        metavar='KEY=VALUE',
        help='change the config, e.g. randomness.seed=1 "a.b=[1,2]" (no spaces in a value)',
    )
