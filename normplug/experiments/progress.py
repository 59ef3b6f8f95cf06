"""How far an experiment is: one line on a terminal, a line for each training elsewhere."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable

__all__ = ['Progress', 'duration']


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

    def finished(self, what: str) -> None:
        """Count a training, and tell of it in ``what``'s words."""
        self.done += 1
        self.tell(what, self.left())

    def tell(self, what: str, left: float | None) -> None:
        """Write the line; ``left`` is None if that is unknown."""
        told = 'time left unknown' if left is None else f'{duration(left)} left'
        line = f'[{self.done}/{self.total}] {told}; {what}'
        start, end = '', '\n'
        if sys.stderr.isatty():
            start, end = '\r\x1b[K', ''
            # What is wrapped is not overwritten.
            line = line[: shutil.get_terminal_size().columns - 1]
        print(start + line, end=end, file=sys.stderr, flush=True)

    def note(self, line: str) -> None:
        """Write another line, above this one."""
        start = '\r\x1b[K' if sys.stderr.isatty() else ''
        print(start + line, file=sys.stderr, flush=True)

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


def duration(seconds: float) -> str:
    """In seconds, minutes or hours."""
    if seconds < 100:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} min' if seconds < 7200 else f'{seconds / 3600:.1f} h'
