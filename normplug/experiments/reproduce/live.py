"""What a table's command says while it runs: one line on a terminal, now and then one elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .jobs import Job
from .pace import Pace

__all__ = ['Live', 'duration']

_SECONDS_BETWEEN = {True: 2.0, False: 600.0}  # on a terminal, and in a log
_OVER_THE_LINE = '\r\x1b[K'


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
        self._done = 0
        self._pace = Pace(jobs, processes)
        self._clock = clock
        self._told = clock()
        self._running: dict[Path, float] = {}  # folder → when it began

    def say(self, line: str) -> None:
        """Write a line of its own, above the other."""
        start = _OVER_THE_LINE if sys.stderr.isatty() else ''
        print(start + line, file=sys.stderr, flush=True)

    def watch(self, running: Mapping[Path, float]) -> None:
        """Renew the line if it is time, from the jobs under way and their seconds."""
        now = self._clock()
        self._running = {folder: now - seconds for folder, seconds in running.items()}
        if now - self._told >= _SECONDS_BETWEEN[sys.stderr.isatty()]:
            self._tell(f'running: {", ".join(self._names[folder] for folder in running)}')

    def ended(self, job: Job, seconds: float | None) -> None:
        """Count a job; it failed if its seconds are None."""
        self._running.pop(job.folder, None)
        self._pace.ended(job, seconds)
        self._done += 1
        self._tell(f'{job.name}: {"failed" if seconds is None else duration(seconds)}')

    def close(self) -> None:
        """End the line."""
        if sys.stderr.isatty():
            print(file=sys.stderr)

    def _tell(self, what: str) -> None:
        now = self._told = self._clock()
        left = self._pace.left({folder: now - began for folder, began in self._running.items()})
        told = 'time left unknown' if left is None else f'{duration(left)} left'
        line = f'[{self._done}/{len(self._names)}] {told}; {what}'
        if not sys.stderr.isatty():
            self.say(line)
            return
        # What is wrapped is not overwritten.
        line = line[: shutil.get_terminal_size().columns - 1]
        print(_OVER_THE_LINE + line, end='', file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """In seconds, minutes or hours."""
    if seconds < 100:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} min' if seconds < 7200 else f'{seconds / 3600:.1f} h'
