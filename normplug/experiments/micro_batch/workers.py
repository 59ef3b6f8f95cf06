"""Trainings side by side, each process on one thread: small maps gain little from a second."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from normplug.launch.rank_lifetime import die_with_launcher

from .cells import Cell, configured
from .run import train_cell

__all__ = ['train_all']


def train_all(
    configs: dict[str, Config], cells: Sequence[Cell], work_dir: Path, processes: int
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Train ``cells`` and yield each with its figures as it ends.

    A process trains one cell after another, so that it imports all packages, and compiles the
    normalizers, once. What it prints goes to ``work_dir/workers.log``; mmengine's log of a
    training is in ``work_dir/runs/CELL``. When the caller stops, or dies, so do the processes.
    """
    earlier = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        min(processes, len(cells)),
        multiprocessing.get_context('spawn'),
        _start,
        (work_dir / 'workers.log',),
    )
    try:
        futures = {
            pool.submit(_train, configs[cell.norm].to_dict(), cell, work_dir): cell
            for cell in cells
        }
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BaseException:
        for process in set(multiprocessing.active_children()) - earlier:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _start(log: Path) -> None:
    die_with_launcher()
    torch.set_num_threads(1)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _train(cfg: dict, cell: Cell, work_dir: Path) -> dict[str, Any]:
    return train_cell(configured(Config(cfg), cell, work_dir))
