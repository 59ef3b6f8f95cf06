"""How long the jobs that are left will take."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from .jobs import Job
from .run import LOG

__all__ = ['Pace', 'seconds_left']

# Epoch(train)  [2][ 50/800] … time: 0.1234, or Iter(train) [ 50/2400] …, the mean of the last
# iterations. Its 'eta' is not used: it takes the first, which compile, for iterations like others.
_TOLD = re.compile(
    r'(?:Epoch\(train\) +\[ *(\d+)\]|Iter\(train\) +)\[ *(\d+)/(\d+)\].*? time: ([\d.]+)'
)
_TAIL = 16384  # bytes: a few lines of a log


class Pace:
    """The time of all trainings, from those that ended and the logs of those under way.

    Args:
        jobs: all that will run; tests among them take little time and are not counted.
        processes: how many run at a time.
    """

    def __init__(self, jobs: Sequence[Job], processes: int) -> None:
        self._waiting = {job.folder: job for job in jobs if job.trains}
        self._processes = processes
        self._took: list[float] = []

    def ended(self, job: Job, seconds: float | None) -> None:
        """Count a job that took so long, or failed."""
        self._waiting.pop(job.folder, None)
        if job.trains and seconds is not None:
            self._took.append(seconds)

    def left(self, running: Mapping[Path, float]) -> float | None:
        """Seconds; None before any training has ended or told how far it is.

        Args:
            running: the folders of the jobs under way, and for how many seconds each has run.
        """
        here = {
            folder: seconds_left(self._waiting[folder])
            for folder in running
            if folder in self._waiting
        }
        known = {folder: eta for folder, eta in here.items() if eta is not None}
        whole = [*self._took, *(running[folder] + eta for folder, eta in known.items())]
        if self._waiting and not whole:
            return None
        mean = sum(whole) / len(whole) if whole else 0.0
        unknown = sum(max(mean - running[folder], 0.0) for folder in here.keys() - known.keys())
        later = mean * len(self._waiting.keys() - here.keys())
        total = sum(known.values()) + unknown + later
        return max(total / self._processes, *known.values(), 0.0)


def seconds_left(job: Job) -> float | None:
    """Of a training, from what it said last in its log; None if it has said nothing."""
    try:
        with open(job.folder / LOG, 'rb') as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - _TAIL))
            told = _TOLD.findall(log.read().decode(errors='replace'))
    except OSError:
        return None
    if not told:
        return None
    epoch, at, end, seconds = told[-1]
    left = int(end) - int(at)
    if epoch:
        left += (job.cfg.train_cfg.max_epochs - int(epoch)) * int(end)
    return left * float(seconds)
