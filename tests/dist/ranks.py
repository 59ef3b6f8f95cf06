"""Processes that form a gloo process group, kept alive from test to test."""

import os
import signal
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from contextlib import suppress
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path

import torch
import torch.distributed as dist

# A collective that a rank does not join fails after the first, any other hang after the second.
COLLECTIVE_TIMEOUT = timedelta(seconds=40)
CALL_TIMEOUT = 120


def _join(rank: int, size: int, store: Path) -> None:
    torch.set_num_threads(1)
    os.environ['LOCAL_RANK'] = str(rank)
    dist.init_process_group(
        'gloo',
        init_method=f'file://{store}',
        rank=rank,
        world_size=size,
        timeout=COLLECTIVE_TIMEOUT,
    )


class Ranks:
    """``size`` processes, one a rank; started by the first call, and anew after a failed one.

    Args:
        size: the world size.
        folder: where the ranks find each other.
    """

    def __init__(self, size: int, folder: Path) -> None:
        self.size = size
        self.folder = folder
        self.workers: list[ProcessPoolExecutor] = []
        self.pids: list[int] = []
        self.starts = 0

    def run(self, function, *args) -> list:
        """The results by rank of ``function(*args)``; raises what the first rank to fail does."""
        if not self.workers:
            self._start()
        futures = [worker.submit(function, *args) for worker in self.workers]
        done, hanging = wait(futures, CALL_TIMEOUT, FIRST_EXCEPTION)
        failed = [future for future in done if future.exception()]
        if failed or hanging:
            self.kill()
        if failed:
            raise failed[0].exception()
        if hanging:
            ranks = [rank for rank, future in enumerate(futures) if future in hanging]
            raise TimeoutError(f'{function.__name__} hangs on ranks {ranks}')
        return [future.result() for future in futures]

    def _start(self) -> None:
        store = self.folder / f'store{self.starts}'
        self.starts += 1
        self.workers = [
            ProcessPoolExecutor(1, get_context('spawn'), _join, (rank, self.size, store))
            for rank in range(self.size)
        ]
        pids = [worker.submit(os.getpid) for worker in self.workers]
        self.pids = [pid.result(CALL_TIMEOUT) for pid in pids]

    def kill(self) -> None:
        """End the processes, whatever they wait for."""
        for pid in self.pids:
            with suppress(ProcessLookupError):  # it has ended itself
                os.kill(pid, signal.SIGKILL)
        for worker in self.workers:
            worker.shutdown()
        self.workers, self.pids = [], []

    def close(self) -> None:
        """Leave the group, and end the processes without their slow farewell."""
        if self.workers:
            self.run(dist.destroy_process_group)
        self.kill()
