"""Compare two processes that share a batch with one process that has all of it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from normplug.register import NORMS

from .checks import Check, FailedError, Setting
from .comparison import Outcome, compare, expected, layer_of, run, tensors_of

__all__ = ['rank_checks']

_SHAPE = (4, 32, 20, 28)
_FIRST = 3  # samples of rank 0, the others are rank 1's
_TIMEOUT = 300  # seconds; two processes import, and compile for all types

SYNCHRONIZED = [name for name, norm in NORMS.items() if norm.synchronized]


def rank_checks(setting: Setting) -> Iterator[Check]:
    """A check for each backend; a pair of processes runs all types that synchronize."""
    gpus = 2 if setting.device == 'cuda' else 0
    for backend in setting.backends:
        call = partial(_two_ranks, backend, setting.device)
        yield Check(f'{", ".join(SYNCHRONIZED)}, {backend}', call, gpus)


def _two_ranks(backend: str, device: str) -> str:
    with tempfile.TemporaryDirectory(prefix='normplug-gpu-check-') as folder:
        processes = mp.start_processes(
            _rank, (folder, backend, device), nprocs=2, join=False, start_method='spawn'
        )
        end = time.monotonic() + _TIMEOUT
        try:
            while not processes.join(timeout=1):
                if time.monotonic() > end:
                    raise FailedError(f'the ranks are not done after {_TIMEOUT} s')
        except mp.ProcessRaisedException as error:
            last = str(error).strip().splitlines()[-1]  # above it is the traceback
            raise FailedError(f'rank {error.error_index}: {last}') from error
        finally:
            for process in processes.processes:
                if process.is_alive():
                    process.kill()
        shares = [float(path.read_text()) for path in Path(folder).glob('share*')]
    communication = 'NCCL' if device == 'cuda' else 'gloo'
    return f'by {communication}; largest error {max(shares):.1%} of what is allowed'


def _rank(rank: int, folder: str, backend: str, device: str) -> None:
    where = f'{device}:{rank}' if device == 'cuda' else device
    if device == 'cuda':
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(1)
    dist.init_process_group(
        'nccl' if device == 'cuda' else 'gloo',
        init_method=f'file://{folder}/store',
        rank=rank,
        world_size=2,
    )
    try:
        share = max(_share(name, rank, backend, where) for name in SYNCHRONIZED)
        (Path(folder) / f'share{rank}').write_text(str(share))
    finally:
        with suppress(RuntimeError):
            dist.destroy_process_group()


def _share(name: str, rank: int, backend: str, device: str) -> float:
    """The largest error of a type on this rank, as a share of what is allowed."""
    x, dy = (t.to(device) for t in tensors_of(_SHAPE, 'float32', 'contiguous', 'cpu'))
    layer = layer_of(name, _SHAPE[1], backend, device)
    whole = expected(layer, x, dy, True)
    own = slice(0, _FIRST) if rank == 0 else slice(_FIRST, None)
    got = run(layer, x[own], dy[own], True)
    got, want = _of_rank(got, whole, own)
    try:
        return compare(got, want, x[own], 'float32')
    except FailedError as error:
        raise FailedError(f'{name}: {error}') from error


def _of_rank(got: Outcome, whole: Outcome, own: slice) -> tuple[Outcome, Outcome]:
    """Parameters' gradients summed over the ranks; of the rest, the rank's samples."""
    per_sample = ('the output', 'the gradient of x')
    summed = dict(got.tensors)
    for name in sorted(got.tensors.keys() - set(per_sample)):  # in one order on all ranks
        summed[name] = got.tensors[name].clone()
        dist.all_reduce(summed[name])
    want = {k: v[own] if k in per_sample else v for k, v in whole.tensors.items()}
    return Outcome(summed, got.running), Outcome(want, whole.running)
