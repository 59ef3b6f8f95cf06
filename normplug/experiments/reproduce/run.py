"""Running jobs: some at a time, in order, each after those that it needs."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from normplug.errors import UserError
from normplug.launch.rank_lifetime import die_with_launcher

from .digits import digits_formats
from .jobs import Job
from .launchers import Launcher
from .records import begin, is_begun

__all__ = ['LOG', 'Failure', 'has_diverged', 'run_jobs', 'threads_of']

LOG = 'reproduce.log'
_POLL = 0.2
_SECONDS_TO_STOP = 20.0


class Failure(str):
    """Why a job has no result, in a line or a few."""

    __slots__ = ()


def run_jobs(
    jobs: Sequence[Job],
    done: set[Path],
    launcher: Launcher,
    processes: int,
    say: Callable[[str], None] = lambda line: None,
    watch: Callable[[Mapping[Path, float]], None] = lambda running: None,
) -> Iterator[tuple[Job, float | Failure]]:
    """Run ``jobs`` and yield each as it ends, with its seconds or why it failed.

    A job goes on from its last checkpoint if it has one. What a job prints is in ``LOG`` in its
    folder. A failure loses only the jobs that need it. When the caller stops, by Ctrl-C too, the
    running jobs are ended first; they keep what they have saved.

    Args:
        jobs: in the order of their start, after those that they need.
        done: the folders of jobs that ended well before, of which they need some; grows.
        launcher: how each is started.
        processes: how many run at a time.
        say: is told what starts.
        watch: is told now and then which jobs run, by their folders, and for how many seconds.

    Raises:
        UserError: nothing can be written to a job's folder.
    """
    waiting, running = list(jobs), {}
    failed: set[Path] = set()
    try:
        while waiting or running:
            for job in list(waiting):
                if failed.intersection(job.needs):
                    waiting.remove(job)
                    failed.add(job.folder)
                    yield job, Failure('not run: what it needs has failed')
                elif len(running) < processes and done.issuperset(job.needs):
                    waiting.remove(job)
                    running[_start(job, launcher, processes)] = job, time.monotonic()
                    say(f'{job.name}: started, log in {job.folder / LOG}')
            ended = next((process for process in running if process.poll() is not None), None)
            if ended is None:
                now = time.monotonic()
                watch({job.folder: now - started for job, started in running.values()})
                time.sleep(_POLL if running else 0)
                continue
            job, started = running.pop(ended)
            if ended.returncode:
                failed.add(job.folder)
                yield job, _why(job, ended.returncode)
            else:
                done.add(job.folder)
                yield job, time.monotonic() - started
    finally:
        _stop(running)


def _start(job: Job, launcher: Launcher, processes: int) -> subprocess.Popen:
    begin(job)
    command = job.command(launcher, resume=is_begun(job))
    env = {**os.environ, **launcher.env, 'PYTHONUNBUFFERED': '1'}
    if launcher.partition is None:
        env.setdefault('OMP_NUM_THREADS', str(threads_of(job, processes * launcher.gpus)))
    try:
        with open(job.folder / LOG, 'ab') as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                preexec_fn=die_with_launcher,
            )
    except OSError as error:
        raise UserError(f'--work-dir: {job.folder} cannot be written: {error.strerror}') from error


def threads_of(job: Job, processes: int) -> int:
    """Of each of so many processes on this machine.

    The maps of the digits gain little from a second thread, and threads that wait for each other
    lose much where other work shares the cores: 2.1 s an iteration instead of 0.23 was measured.
    """
    return 1 if digits_formats(job.cfg) else max(1, (os.cpu_count() or 1) // processes)


def has_diverged(folder: Path) -> bool:
    """Whether a training stopped because its loss, or a weight, became NaN or Inf."""
    # After it, torchrun's report.
    lines = _end_of_log(folder, 60)
    return any('training stopped: ' in line and 'NaN or Inf' in line for line in lines)


def _why(job: Job, code: int) -> Failure:
    told = [f'exit code {code}; the end of {job.folder / LOG}:', *_end_of_log(job.folder, 8)]
    return Failure('\n    '.join(told))


def _end_of_log(folder: Path, lines: int) -> list[str]:
    path = folder / LOG
    return path.read_text(errors='replace').splitlines()[-lines:] if path.exists() else []


def _stop(running: Mapping[subprocess.Popen, object]) -> None:
    for process in running:
        process.terminate()
    deadline = time.monotonic() + _SECONDS_TO_STOP
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
