"""The command line of tools/micro_batch.py."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.device import get_device

from normplug.bench.output import write_all
from normplug.bench.provenance import provenance
from normplug.compat.base_configs import find_config
from normplug.errors import UserError, exit_code
from normplug.launch.work_dir_lock import lock_work_dir
from normplug.preflight.model import build_checked_model

from ..fingerprint import fingerprint
from ..progress import Progress
from .cells import Cell, cells_of, configured, find_configs, load_norm
from .report import files
from .results import append_result, read_results
from .task import build_task
from .workers import train_all

__all__ = ['RESULTS', 'main_micro_batch']

RESULTS = 'results.jsonl'
_BASE = 'normplug::micro_batch/resnet18-w16_cluttered-digits.py'


def main_micro_batch(argv: Sequence[str] | None = None, prog: str = 'tools/micro_batch.py') -> int:
    """Train what is not finished yet, write the report and return the exit code.

    0; 2 after an error by the user.
    """
    argv = sys.argv[1:] if argv is None else argv
    args = _parser(prog).parse_args(argv)
    return exit_code(lambda: _experiment(args, argv, prog), prog)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Train a small classifier with each normalizer at each normalization batch '
        "under the same optimizer's batch, and report the validation error as table, CSV and "
        'figure. A command that was interrupted goes on where it stopped when it is given again.',
    )
    add = parser.add_argument
    add(
        '--config-dir',
        type=Path,
        metavar='DIR',
        help="of the configs MODEL_NORM_DATA.py (default: normplug's own, configs/micro_batch)",
    )
    add('--norms', nargs='+', metavar='NORM', help='by the NORM of the configs (default: all)')
    add('--batches', nargs='+', type=int, metavar='IMAGES', help="default: the configs' own")
    add('--seeds', nargs='+', type=int, default=[0, 1, 2, 3, 4], help='(default: 0 1 2 3 4)')
    add('--max-iters', type=int, metavar='COUNT', help="of a training; default: the configs' own")
    add(
        '--cfg-options',
        nargs='+',
        type=_key_value,
        action=DictAction,
        metavar='KEY=VALUE',
        help='change all configs, e.g. optim_wrapper.optimizer.lr=0.1',
    )
    add(
        '--processes',
        type=int,
        default=os.cpu_count() or 1,
        metavar='COUNT',
        help='trainings at a time, each on one thread (default: one a core, %(default)s)',
    )
    add(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/micro_batch'),
        metavar='DIR',
        help='for results, report and logs (default: %(default)s)',
    )
    return parser


def _key_value(text: str) -> str:
    if not text.partition('=')[1]:
        raise argparse.ArgumentTypeError(f'{text!r} is not KEY=VALUE')
    return text


def _experiment(args: argparse.Namespace, argv: Sequence[str], prog: str) -> None:
    _check(args)
    configs = _configs(args)
    cells = cells_of(configs, args.batches, args.seeds)
    _check_models(configs, cells, args.work_dir)
    for note in lock_work_dir(str(args.work_dir)):
        _say(note)
    path = args.work_dir / RESULTS
    fingerprints = {norm: fingerprint(cfg) for norm, cfg in configs.items()}
    results = read_results(path, fingerprints)
    for cfg in configs.values():
        build_task(cfg, lambda line: None if 'already' in line else _say(line))
    todo = [cell for cell in cells if cell not in results]
    _say(f'{len(cells) - len(todo)} of {len(cells)} trainings are finished, in {path}')
    if todo:
        source = provenance(prog, argv, 'cpu' if get_device() == 'cpu' else 'cuda')
        source |= {'threads': 1, 'processes': args.processes}
        progress = Progress(len(todo), min(args.processes, len(todo)), time.monotonic)
        try:
            for cell, row in train_all(configs, todo, args.work_dir, args.processes):
                results[cell] = {**row, 'config': fingerprints[cell.norm], **source}
                append_result(path, cell, results[cell])
                progress.finished(f'{cell}: {_outcome(row)}')
        finally:
            progress.close()
    report = files(cells, results)
    print(report['micro_batch.md'].decode())
    for written in write_all(args.work_dir, report):
        print(written)


def _check(args: argparse.Namespace) -> None:
    """Raise UserError, naming the option, for values that argparse lets through."""
    for option in ('max_iters', 'processes'):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise UserError(f'--{option.replace("_", "-")} must be at least 1, got {value}')
    if min(args.seeds) < 0:
        raise UserError(f'--seeds must not be negative, got {min(args.seeds)}')


def _configs(args: argparse.Namespace) -> dict[str, Config]:
    folder = args.config_dir or Path(find_config(_BASE)).parent
    found = find_configs(folder)
    unknown = [norm for norm in args.norms or () if norm not in found]
    if unknown:
        raise UserError(
            f'--norms: {folder} has no config of {", ".join(unknown)}; it has those of '
            f'{", ".join(found)}'
        )
    norms = dict.fromkeys(args.norms or found)
    return {norm: load_norm(found[norm], args.cfg_options, args.max_iters) for norm in norms}


def _check_models(configs: Mapping[str, Config], cells: Sequence[Cell], work_dir: Path) -> None:
    """Raise UserError where a model cannot be built, before the first minute is spent."""
    for cell in {cell.norm: cell for cell in cells}.values():
        build_checked_model(configured(configs[cell.norm], cell, work_dir))


def _outcome(row: Mapping[str, Any]) -> str:
    result = 'diverged' if row['error'] is None else f'error {row["error"]:.1f} %'
    return f'{result}, {row["seconds"]:.0f} s'


def _say(line: Any) -> None:
    print(line, file=sys.stderr, flush=True)
