"""The command line of tools/reproduce.py."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.device import get_device

from normplug.errors import UserError, exit_code
from normplug.launch.work_dir_lock import lock_work_dir
from normplug.preflight.config import KeyValues
from normplug.reports.output import write_all
from normplug.reports.provenance import provenance

from .digits import make_digits
from .estimate import estimated_seconds
from .jobs import Job, JobPlan, Settings, plan
from .launchers import make_launcher
from .live import Live, duration
from .needs import check_needs
from .records import finish, is_begun, read_done
from .report import report
from .rows import Row, Table
from .run import Failure, run_jobs, threads_of
from .summary import summarize
from .tables import SEVERAL, TABLES

__all__ = ['main_reproduce']


def main_reproduce(argv: Sequence[str] | None = None, prog: str = 'tools/reproduce.py') -> int:
    """Train what is not finished of a table, write its report and return the exit code.

    0; 1 if a row failed; 2 after an error by the user; 130 after Ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else argv
    args = _parser(prog).parse_args(argv)
    failed: list[str] = []

    def tool() -> None:
        failed.extend(_reproduce(args, argv, prog))

    try:
        code = exit_code(tool, prog)
    except KeyboardInterrupt:
        _say('\ninterrupted; the same command goes on where it stopped')
        return 130
    if failed:
        _say('\n'.join(['failed:', *failed, 'the same command tries them again']))
    return code or int(bool(failed))


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Train and test every row of a published table, with several seeds, and '
        'report the numbers beside the published ones. A command that was interrupted goes on '
        'where it stopped when it is given again.',
    )
    add = parser.add_argument
    names = [*TABLES, *SEVERAL]
    add('table', choices=names, metavar='TABLE', help=', '.join(names))
    add(
        '--data',
        choices=['digits', 'real'],
        default='digits',
        help='the small twin of each row on the embedded data, or the row itself on the real '
        'data (docs/real_data.md) (default: digits)',
    )
    add('--seeds', type=int, default=3, metavar='K', help='of each row: 0 to K-1 (default: 3)')
    add(
        '--own-pretraining',
        action='store_true',
        help='start each seed from a pretraining of that seed, so that the spread has that of the '
        'pretrainings (default: all from that of seed 0); of rows whose pretraining this command '
        'trains, not of released weights',
    )
    add('--rows', nargs='+', metavar='ROW', help='by the names in the report (default: all)')
    add('--gpus', type=int, default=1, metavar='N', help='processes of a training (default: 1)')
    add('--launcher', choices=['local', 'slurm'], default='local')
    add('--partition', help='of Slurm')
    add(
        '--processes',
        type=int,
        default=1,
        metavar='COUNT',
        help='trainings at a time, on a machine without GPUs (default: 1)',
    )
    add('--dry-run', action='store_true', help='print the commands that are left, and run none')
    add(
        '--estimate',
        action='store_true',
        help='print how long what is left will take, from some iterations of each config, and '
        'train nothing',
    )
    add(
        '--cfg-options',
        nargs='+',
        action=KeyValues,
        default={},
        metavar='KEY=VALUE',
        help='change all configs, e.g. train_cfg.max_epochs=1',
    )
    add(
        '--work-dir',
        type=_folder,
        default=Path('work_dirs/reproduce'),
        metavar='DIR',
        help='for trainings and reports (default: %(default)s)',
    )
    return parser


def _folder(path: str) -> Path:
    """The same however it is written: runs are told apart by what their configs say, paths too."""
    whole, here = Path(os.path.abspath(path)), Path.cwd()
    return whole.relative_to(here) if whole.is_relative_to(here) else whole


def _reproduce(args: argparse.Namespace, argv: Sequence[str], prog: str) -> list[str]:
    _check(args)
    launcher = make_launcher(args.gpus, args.launcher, args.partition)
    chosen = _chosen(args)
    settings = Settings(args.data, args.work_dir, launcher, args.cfg_options, args.own_pretraining)
    seeds = range(args.seeds)
    made = plan(chosen, seeds, settings)
    records = {job.folder: record for job in made.jobs.values() if (record := read_done(job))}
    todo = [job for job in made.jobs.values() if job.folder not in records]
    _say(f'{len(records)} of {len(made.jobs)} jobs are finished, in {args.work_dir}')
    if args.dry_run:
        for job in todo:
            print(f'{job.shell_command(launcher)}{" --resume" if is_begun(job) else ""}')
    trains, reads = not (args.dry_run or args.estimate), args.estimate or not args.dry_run
    if reads:
        make_digits((job.cfg for job in made.jobs.values()), _say)
    if reads or args.data == 'real':
        check_needs(made.jobs.values(), download=trains)
    if args.estimate:
        _estimate(todo, args.gpus, args.processes)
    if not trains:
        return []
    for note in lock_work_dir(str(args.work_dir)):
        _say(note)
    source = provenance(prog, argv, 'cpu' if get_device() == 'cpu' else 'cuda')
    del source['threads']  # of this process, not of the trainings
    source |= {'processes': args.processes * args.gpus, 'data': args.data}
    try:
        return _run(todo, records, settings, args.processes, source)
    finally:
        # All rows of the tables: those of other commands too.
        whole = plan({table: table.rows for table in chosen}, seeds, settings)
        _report(chosen, seeds, whole, {**_finished(whole), **records}, settings)


def _check(args: argparse.Namespace) -> None:
    """Raise UserError, naming the option, for values that argparse lets through."""
    for option in ('seeds', 'gpus', 'processes'):
        if getattr(args, option) < 1:
            raise UserError(f'--{option} must be at least 1, got {getattr(args, option)}')
    if 'randomness.seed' in args.cfg_options:
        raise UserError('--cfg-options randomness.seed: every row has seeds 0 to K-1 of --seeds K')
    if args.processes > 1 and (args.gpus > 1 or get_device() != 'cpu'):
        raise UserError(
            '--processes is for a machine without GPUs: give each command its own by '
            'CUDA_VISIBLE_DEVICES and --rows, with a --work-dir of its own'
        )


def _chosen(args: argparse.Namespace) -> dict[Table, tuple[Row, ...]]:
    """The rows of the command line, by their tables.

    Raises:
        UserError: there is no such row, or none at the scale of --data.
    """
    chosen = {
        table: rows
        for table, rows in _named(args).items()
        if any(row.at(args.data) for row in rows)
    }
    if not chosen:
        other = 'real' if args.data == 'digits' else 'digits'
        raise UserError(f'--data {args.data}: these rows are at the other scale, --data {other}')
    return chosen


def _named(args: argparse.Namespace) -> dict[Table, tuple[Row, ...]]:
    tables = [TABLES[name] for name in SEVERAL.get(args.table, (args.table,))]
    if not args.rows:
        return {table: table.rows for table in tables}
    wanted = {name.lower() for name in args.rows}
    chosen = {
        table: tuple(row for row in table.rows if row.name.lower() in wanted) for table in tables
    }
    found = {row.name.lower() for rows in chosen.values() for row in rows}
    unknown = [name for name in args.rows if name.lower() not in found]
    if unknown:
        known = dict.fromkeys(f'"{row.name}"' for table in tables for row in table.rows)
        raise UserError(f'--rows: no row {", ".join(unknown)}; there are {", ".join(known)}')
    return {table: rows for table, rows in chosen.items() if rows}


def _finished(made: JobPlan) -> dict[Path, Mapping[str, Any]]:
    """What is finished of the jobs, those of other settings left out."""
    records = {}
    for job in made.jobs.values():
        with suppress(UserError):
            records[job.folder] = read_done(job)
    return {folder: record for folder, record in records.items() if record is not None}


def _estimate(todo: Sequence[Job], gpus: int, processes: int) -> None:
    trainings = {job.of_row: job for job in todo if job.trains}
    times: dict[Path, float | None] = {}
    for number, (row, job) in enumerate(trainings.items(), start=1):
        _say(f'[{number}/{len(trainings)}] measuring {row.name}')
        told = times[row] = estimated_seconds(job, gpus, threads_of(job, processes * gpus))
        print(f'{row.name}: {"not measured" if told is None else duration(told)} a training')
    unknown = [row for row, seconds in times.items() if seconds is None]
    total = sum(times[job.of_row] or 0 for job in todo if job.trains) / processes
    print(
        f'{len(todo)} jobs, about {duration(total)} for the trainings; evaluations, tests and '
        'compilation, once a machine, not counted'
        + (f'; {len(unknown)} rows could not be measured' if unknown else '')
    )


def _run(
    todo: Sequence[Job],
    records: dict[Path, Mapping[str, Any]],
    settings: Settings,
    processes: int,
    source: Mapping[str, Any],
) -> list[str]:
    """Run the jobs, add their records, and return a line or more for each that failed."""
    failed = []
    if not todo:
        return failed
    live = Live(todo, min(processes, len(todo)))
    try:
        for job, outcome in run_jobs(
            todo, set(records), settings.launcher, processes, live.say, live.watch
        ):
            try:
                if not isinstance(outcome, Failure):
                    records[job.folder] = finish(job, outcome, source, settings.launcher.gpus)
                    live.ended(job, outcome)
                    continue
            except UserError as error:
                outcome = Failure(error)
            failed.append(f'  {job.name}: {outcome}')
            live.ended(job, None)
    finally:
        live.close()
    return failed


def _report(
    tables: Iterable[Table],
    seeds: Sequence[int],
    made: JobPlan,
    records: Mapping[Path, Mapping[str, Any]],
    settings: Settings,
) -> None:
    for table in tables:
        summaries = summarize(table, table.rows, seeds, made, records)
        own = {
            place
            for row in table.rows
            for seed in seeds
            for place in made.cells.get((table.name, row.name, seed), {}).values()
        }
        own_records = [records[place] for place in sorted(own) if place in records]
        pretrained = any(made.jobs[place].needs for place in own if made.jobs[place].trains)
        kind = settings.own_pretraining if pretrained else None
        files = report(table, settings.data, summaries, own_records, kind)
        print(files[f'{table.name}.md'].decode())
        for path in write_all(settings.work_dir / settings.data, files, '--work-dir'):
            print(os.path.relpath(path))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
