"""The command line of tools/gpu_check.py."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from normplug.errors import UserError, exit_code
from normplug.ops.backend import get_backend, set_backend
from normplug.reports.output import write_all
from normplug.reports.provenance import provenance

from .behaviour import behaviour_checks
from .checks import Check, Result, Setting, perform
from .environment import environment_checks
from .parity import memory_checks, parity_checks, size_checks
from .ranks import rank_checks
from .report import files, summary, verdict
from .speed import layer_checks, model_checks, order_checks
from .waits import launch_checks, wait_checks

__all__ = ['GROUPS', 'main_gpu_check']

_MINUTES = 3.0


class Group(NamedTuple):
    """The checks of a group, and after how many of 180 seconds no further one starts."""

    checks: Callable[[Setting], Iterable[Check]]
    limit: float


GROUPS = {
    'environment': Group(environment_checks, 15),
    'parity': Group(parity_checks, 40),
    'sizes': Group(size_checks, 40),
    'memory': Group(memory_checks, 10),
    'behaviour': Group(behaviour_checks, 20),
    'waits': Group(wait_checks, 10),
    'launches': Group(launch_checks, 5),
    'order': Group(order_checks, 15),
    'ranks': Group(rank_checks, 5),
    'layers': Group(layer_checks, 10),
    'model': Group(model_checks, 15),
}


def main_gpu_check(argv: Sequence[str] | None = None, prog: str = 'tools/gpu_check.py') -> int:
    """Run the checks of the command line, write the report and return the exit code.

    It is 0; 1 if a check failed or none could run; 2 after a user error, such as no GPU.
    """
    argv = sys.argv[1:] if argv is None else argv
    args = _parser(prog).parse_args(argv)
    backend = get_backend()
    results: list[Result] = []
    try:
        code = exit_code(lambda: results.extend(_gpu_check(args, argv, prog)), prog)
    finally:
        set_backend(backend)
    states = {result.state for result in results}
    return code or int('failed' in states or 'ok' not in states)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Check once, in about three minutes, that the normalizers are right and fast '
        'on the GPU of this machine: results and gradients against float64 on the CPU, streams, '
        'CUDA graphs, AMP, host waits, launches, times beside batch norm. A check that fails stops '
        'no other. Exit code 1 if one failed. The report is for an issue.',
    )
    parser.add_argument(
        '--device',
        choices=('cuda', 'cpu'),
        default='cuda',
        help='cpu: only the checks that need no GPU (default: cuda)',
    )
    parser.add_argument('--quick', action='store_true', help='fewer and smaller inputs')
    parser.add_argument(
        '--only',
        nargs='+',
        choices=GROUPS,
        metavar='GROUP',
        help=f'of {", ".join(GROUPS)} (default: all)',
    )
    parser.add_argument(
        '--backend',
        nargs='+',
        choices=('eager', 'compiled'),
        default=['eager', 'compiled'],
        help='of the normalizers (default: both)',
    )
    parser.add_argument(
        '--minutes',
        type=float,
        default=_MINUTES,
        help='for all groups; checks beyond the share of their group are skipped, and listed '
        '(default: %(default)g)',
    )
    parser.add_argument(
        '--out',
        default='work_dirs/gpu_check',
        metavar='DIR',
        help='for gpu_check.md and gpu_check.json, which replace those of an earlier run '
        '(default: %(default)s)',
    )
    return parser


def _gpu_check(args: argparse.Namespace, argv: Sequence[str], prog: str) -> list[Result]:
    _check(args)
    # In this order, whatever theirs was: 'compiled' is the one that is measured.
    backends = [name for name in ('eager', 'compiled') if name in args.backend]
    setting = Setting(args.device, backends, args.quick)
    source = provenance(prog, argv, args.device)
    results: list[Result] = []
    for name, group in GROUPS.items():
        if args.only and name not in args.only:
            continue
        limit = group.limit * args.minutes / _MINUTES
        results += perform(name, group.checks(setting), args.device, limit, _say)
        # After each group: what was seen is not lost if the next one ends the process.
        made = files(results, setting.tables, source, args.device)
        paths = write_all(Path(args.out), made)
    for row in summary(results):
        print('{group}: {ok} ok, {failed} failed, {skipped} skipped ({seconds} s)'.format(**row))
    for result in results:
        if result.state == 'failed':
            print(f'FAILED: {result.group}: {result.name}: {result.seen}')
    print(verdict(results, args.device))
    for path in paths:
        print(path)
    return results


def _check(args: argparse.Namespace) -> None:
    """Raise UserError, naming the option, for bad values that argparse accepts."""
    if args.device == 'cuda' and not torch.cuda.is_available():
        build = torch.version.cuda or torch.version.hip
        reason = f'torch {torch.__version__} '
        reason += 'finds no GPU' if build else 'is a build for CPUs only'
        raise UserError(f'{reason}. --device cpu makes the checks that need none')
    if not 0 < args.minutes < math.inf:
        raise UserError(f'--minutes must be a positive number, got {args.minutes:g}')
    if Path(args.out).exists() and not Path(args.out).is_dir():
        raise UserError(f'--out: {args.out} is a file; name a folder')


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
