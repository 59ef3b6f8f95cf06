"""How far an experiment is: one line on a terminal, a line for each training elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from .cells import Cell

__all__ = ['Progress']


class Progress:
    """Tell on stderr of each training that ends, and how long the rest will take.

    Args:
        total: trainings of this command.
        processes: how many run at a time.
        clock: seconds, from any start.
    """

    def __init__(self, total: int, processes: int, clock: Callable[[], float]) -> None:
        self.total = total
        self.processes = processes
        self.clock = clock
        self.started = clock()
        self.done = 0

    def finished(self, cell: Cell, row: Mapping[str, Any]) -> None:
        """Count a training, and tell of it."""
        self.done += 1
        result = 'diverged' if row['error'] is None else f'error {row["error"]:.1f} %'
        line = f'[{self.done}/{self.total}] {cell}: {result}, {row["seconds"]:.0f} s'
        line += f'; {_duration(self.left())} left'
        start, end = ('\r\x1b[K', '') if sys.stderr.isatty() else ('', '\n')
        print(start + line, end=end, file=sys.stderr, flush=True)

    def left(self) -> float:
        """Seconds that the rest will take, at the pace so far.

        Of the trainings under way, half is done on average. The first ones take longer than the
        others: a process starts with them.
        """
        running = min(self.processes, self.total - self.done)
        done = self.done + running / 2
        return (self.clock() - self.started) * (self.total - done) / done

    def close(self) -> None:
        """End the line."""
        if sys.stderr.isatty():
            print(file=sys.stderr)


def _duration(seconds: float) -> str:
    return f'{seconds:.0f} s' if seconds < 100 else f'{seconds / 60:.0f} min'
