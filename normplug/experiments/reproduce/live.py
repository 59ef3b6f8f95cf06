"""What a table's command says while it runs: one line on a terminal, now and then one elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..progress import Progress, duration
from .jobs import Job
from .pace import Pace

__all__ = ['Live']

_SECONDS_BETWEEN = {True: 2.0, False: 600.0}  # on a terminal, and in a log


class Live:
    """How far the whole is and how long the rest will take, on stderr.

    Args:
        jobs: all that will run.
        processes: how many run at a time.
        clock: seconds, from any start.
    """

    def __init__(
        self, jobs: Sequence[Job], processes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._names = {job.folder: job.name for job in jobs}
        self._progress = Progress(len(jobs), processes, clock)
        self._pace = Pace(jobs, processes)
        self._clock = clock
        self._told = clock()
        self._running: dict[Path, float] = {}  # folder → when it began

    def say(self, line: str) -> None:
        """Write a line of its own."""
        self._progress.note(line)

    def watch(self, running: Mapping[Path, float]) -> None:
        """Renew the line if it is time, from the jobs under way and their seconds."""
        now = self._clock()
        self._running = {folder: now - seconds for folder, seconds in running.items()}
        if now - self._told >= _SECONDS_BETWEEN[sys.stderr.isatty()]:
            self._told = now
            names = ', '.join(self._names[folder] for folder in running)
            self._progress.tell(f'running: {names}', self._pace.left(running))

    def ended(self, job: Job, seconds: float | None) -> None:
        """Count a job; it failed if its seconds are None."""
        self._running.pop(job.folder, None)
        self._pace.ended(job, seconds)
        now = self._told = self._clock()
        running = {folder: now - began for folder, began in self._running.items()}
        how = 'failed' if seconds is None else duration(seconds)
        self._progress.done += 1
        self._progress.tell(f'{job.name}: {how}', self._pace.left(running))

    def close(self) -> None:
        """End the line."""
        self._progress.close()
