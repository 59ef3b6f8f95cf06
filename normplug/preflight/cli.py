"""The command line of tools/check_data.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmengine.config import Config

from normplug.errors import UserError, exit_code

from .config import add_config_arguments, load_config
from .data import check_all_data, check_num_classes
from .types import check_types

__all__ = ['main_check_data']


def main_check_data(argv: Sequence[str] | None = None, prog: str = 'tools/check_data.py') -> int:
    """Check all data as the command line says, print the findings and return the exit code."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Read the annotation files of a config, decode every image, map of labels and '
        'video, and list what is wrong and what could not be looked at. Nothing is changed. '
        'The exit code is 2 after errors; warnings are about data that mm leaves out or uses '
        'although they look wrong.',
    )
    add_config_arguments(parser)
    parser.add_argument(
        '--phases',
        nargs='+',
        choices=['train', 'val', 'test'],
        help='default: those that the config has',
    )
    args = parser.parse_args(argv)
    return exit_code(lambda: _check(args), prog)


def _check(args: argparse.Namespace) -> None:
    cfg = load_config(args.config, args.cfg_options)
    phases = tuple(args.phases or _phases(cfg))
    check_types(cfg, phases)
    problems = check_all_data(cfg, phases)
    for kind, found in ('warning', problems.warnings), ('error', problems.errors):
        for problem in found:
            print(f'{kind}: {problem.full_text()}')
    for what in problems.unseen:
        print(f'not looked at: {what}')
    cases = sum(len(problem.cases) for problem in problems.errors)
    if cases:
        raise UserError(f'{cases} errors in the data of {args.config}, listed above')
    check_num_classes(None, cfg, phases)
    seen = 'what was looked at of the data' if problems.unseen else 'the data'
    print(f'no errors in {seen} of {args.config} ({", ".join(phases)})')


def _phases(cfg: Config) -> list[str]:
    """Those of the config; test only if its data are not those of val."""
    loaders = {phase: cfg.get(f'{phase}_dataloader') for phase in ('train', 'val', 'test')}
    if loaders['test'] == loaders['val']:
        del loaders['test']
    return [phase for phase, loader in loaders.items() if loader]
