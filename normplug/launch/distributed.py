"""The process group of the tools on N processes: NCCL on GPUs, gloo on CPUs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from numbers import Real

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import all_gather_object, init_dist, is_distributed
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from mmengine.utils.dl_utils import set_multi_processing
from torch.distributed.constants import default_pg_timeout
from torch.nn.parallel import DistributedDataParallel

from normplug.errors import UserError
from normplug.preflight.config_types import class_of, scope_of

from .portable_ddp import PortableDistributedDataParallel
from .rank_lifetime import die_with_launcher

__all__ = ['errors_on_all_ranks', 'join_process_group']

# The environment variables of each launcher, by torch's names for them.
_VARIABLES = {
    'pytorch': {'RANK': 'RANK', 'WORLD_SIZE': 'WORLD_SIZE', 'LOCAL_RANK': 'LOCAL_RANK'},
    'slurm': {'RANK': 'SLURM_PROCID', 'WORLD_SIZE': 'SLURM_NTASKS', 'LOCAL_RANK': 'SLURM_LOCALID'},
    'mpi': {
        'RANK': 'OMPI_COMM_WORLD_RANK',
        'WORLD_SIZE': 'OMPI_COMM_WORLD_SIZE',
        'LOCAL_RANK': 'OMPI_COMM_WORLD_LOCAL_RANK',
    },
}
_STARTED_BY = {
    'pytorch': 'tools/dist_train.sh or tools/dist_test.sh',
    'slurm': 'tools/slurm_train.sh or tools/slurm_test.sh',
    'mpi': 'mpirun',
}
_NOTICE_AFTER = 10.0  # seconds of waiting for the other processes
# torch waits as long as for a collective, half an hour: too long for a process that never comes.
_RENDEZVOUS = timedelta(minutes=5)


def join_process_group(cfg: Config) -> list[str]:
    """Initialize the process group that ``cfg.launcher`` asks for, before mmengine's runner does.

    mmengine then finds it initialized. On a machine without a GPU, ``cfg`` is changed so that
    mmengine trains there.

    Returns:
        One line for the log for each setting that now differs from the config.

    Raises:
        UserError: the launcher's variables are missing or contradict each other or the machine, or
            the ranks do not find each other.
    """
    launcher = cfg.get('launcher', 'none')
    if launcher == 'none':
        _check_alone()
        return []
    if launcher == 'pytorch' and 'TORCHELASTIC_RUN_ID' in os.environ:
        die_with_launcher()
    on_cpu = get_device() == 'cpu'
    _check_sync_bn(cfg, on_cpu)
    notes = []
    if not is_distributed():
        _set_torch_variables(launcher)
        _check_place()
        notes += _initialize(cfg, launcher, on_cpu)
    return notes + (_wrap_for_cpu(cfg) if on_cpu else [])


@contextmanager
def errors_on_all_ranks() -> Iterator[None]:
    """Raise on all ranks what any rank raised as a UserError inside the block.

    The ranks meet at the end of the block, so that none goes on or waits for one that gave up.

    Raises:
        UserError: with the same text on all ranks.
    """
    own = None
    try:
        yield
    except UserError as error:
        own = error
    if own and not is_distributed():
        raise own
    ranks: dict[str, list[int]] = {}
    messages = all_gather_object(str(own) if own else None)
    for rank, message in enumerate(messages):
        if message is not None:
            ranks.setdefault(message, []).append(rank)
    if ranks:
        raise UserError(
            '\n'.join(
                text if len(at) == len(messages) else f'on rank {", ".join(map(str, at))}: {text}'
                for text, at in ranks.items()
            )
        ) from own


def _check_alone() -> None:
    size = os.environ.get('WORLD_SIZE', '')
    if size.isdecimal() and int(size) > 1 and not is_distributed():
        raise UserError(
            f'WORLD_SIZE={size} in the environment: this is one of {size} processes, and without a '
            'launcher each would run on its own. Add --launcher pytorch; for one process, unset '
            'WORLD_SIZE'
        )


def _set_torch_variables(launcher: str) -> None:
    """Set ``RANK`` and torch's other variables from those of the launcher."""
    names = _VARIABLES[launcher]
    wanted = [*names.values()]
    wanted += ['SLURM_NODELIST'] if launcher == 'slurm' else ['MASTER_ADDR']
    wanted += ['MASTER_PORT'] if launcher == 'pytorch' else []
    missing = [name for name in wanted if name not in os.environ]
    if missing:
        raise UserError(
            f'--launcher {launcher} needs the environment variables {", ".join(missing)}: start '
            f'the processes by {_STARTED_BY[launcher]} (docs/distributed.md), or drop --launcher '
            'to run in one process'
        )
    for name, source in names.items():
        value = os.environ[source]
        if not value.isdecimal():
            raise UserError(f'{source}={value!r} in the environment is not a number')
        os.environ[name] = value
    if launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
        os.environ['MASTER_ADDR'] = _first_slurm_host()
    os.environ.setdefault('MASTER_PORT', '29500')
    if not os.environ['MASTER_PORT'].isdecimal():
        raise UserError(
            f'MASTER_PORT={os.environ["MASTER_PORT"]!r} in the environment is not a port'
        )


def _first_slurm_host() -> str:
    nodes = os.environ['SLURM_NODELIST']
    if shutil.which('scontrol') is None:
        raise UserError(
            '--launcher slurm finds no scontrol on this node, which resolves SLURM_NODELIST='
            f'{nodes}; set MASTER_ADDR to the first of these nodes'
        )
    command = ['scontrol', 'show', 'hostnames', nodes]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not done.stdout.strip():
        raise UserError(f'{" ".join(command)} failed: {done.stderr.strip()}; set MASTER_ADDR')
    return done.stdout.split()[0]


def _check_place() -> None:
    """Check that the rank is below the world size, and that the machine has a GPU for it."""
    rank, size, local = (int(os.environ[name]) for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'))
    if rank >= size:
        raise UserError(
            f'RANK={rank} does not fit WORLD_SIZE={size}: ranks count from 0 to {size - 1}. Is '
            'NNODES the same on all nodes, and NODE_RANK another on each?'
        )
    gpus = torch.cuda.device_count()
    if 0 < gpus <= local:
        raise UserError(
            f'LOCAL_RANK={local} needs GPU {local}, but this machine has {gpus} '
            '(CUDA_VISIBLE_DEVICES counts): start at most one process a GPU'
        )


def _initialize(cfg: Config, launcher: str, on_cpu: bool) -> list[str]:
    env_cfg = cfg.get('env_cfg') or {}
    # As the runner would: init_dist sets the start method where it is not set yet.
    set_multi_processing(**env_cfg.get('mp_cfg', {}), distributed=True)
    dist_cfg = dict(env_cfg.get('dist_cfg') or {})
    timeout = dist_cfg.get('timeout')
    if timeout is not None and not (isinstance(timeout, Real) and timeout > 0):
        raise UserError(
            f'env_cfg.dist_cfg.timeout must be a number of seconds above 0, got {timeout!r}'
        )
    if 'port' in dist_cfg:
        os.environ['MASTER_PORT'] = str(dist_cfg.pop('port'))
    notes = []
    try:
        with _waiting_announced():
            if _meets_by_torch(dist_cfg, on_cpu):
                dist_cfg.update(_rendezvous(timeout))
            if on_cpu:
                notes = _initialize_on_cpu(dist_cfg)
            else:
                init_dist(launcher, **dist_cfg)
    except dist.DistError as error:
        raise UserError(
            f'the {os.environ["WORLD_SIZE"]} processes do not find each other at {_address()} '
            f'(MASTER_ADDR:MASTER_PORT): {error}\n'
            'If the port is in use, choose another by PORT=...; if a node is missing, start it too'
        ) from error
    return notes


def _address() -> str:
    return f'{os.environ["MASTER_ADDR"]}:{os.environ["MASTER_PORT"]}'


@contextmanager
def _waiting_announced() -> Iterator[None]:
    text = f'waiting for {os.environ["WORLD_SIZE"]} processes at {_address()}'
    where = ' (MASTER_ADDR:MASTER_PORT); is each of them started?'
    timer = threading.Timer(_NOTICE_AFTER, lambda: print(text + where, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _meets_by_torch(dist_cfg: dict, on_cpu: bool) -> bool:
    """Whether ``init_dist`` would end in ``init_process_group`` by the environment."""
    if 'init_method' in dist_cfg:
        return False
    return on_cpu or (torch.cuda.is_available() and dist_cfg.get('init_backend') in (None, 'torch'))


def _rendezvous(timeout: float | None) -> dict:
    """Wait for the other processes, shorter than for a collective unless ``timeout`` is given.

    Returns:
        The arguments with which ``init_process_group`` goes on from there.
    """
    collectives = default_pg_timeout if timeout is None else timedelta(seconds=timeout)
    limit = _RENDEZVOUS if timeout is None else collectives
    store, rank, size = next(dist.rendezvous('env://', timeout=limit))
    store.set_timeout(collectives)
    return {'store': store, 'rank': rank, 'world_size': size}


def _initialize_on_cpu(dist_cfg: dict) -> list[str]:
    """Do what ``init_dist`` does, without its ``torch.cuda.set_device``."""
    asked = dist_cfg.pop('backend', 'nccl')
    backend = 'gloo' if asked == 'nccl' else asked
    dist_cfg.pop('init_backend', None)
    if 'timeout' in dist_cfg:
        dist_cfg['timeout'] = timedelta(seconds=dist_cfg['timeout'])
    dist.init_process_group(backend, **dist_cfg)
    if backend == asked:
        return []
    return [f'no GPU: {dist.get_world_size()} processes communicate by gloo instead of nccl']


def _check_sync_bn(cfg: Config, on_cpu: bool) -> None:
    sync_bn = cfg.get('sync_bn')
    if sync_bn not in (None, 'torch', 'mmcv'):
        raise UserError(f"sync_bn must be 'torch' or 'mmcv', got {sync_bn!r}")
    if sync_bn == 'mmcv' and on_cpu:
        raise UserError("sync_bn='mmcv' runs on GPUs only; on CPUs use sync_bn='torch'")


def _wrap_for_cpu(cfg: Config) -> list[str]:
    """Make mmengine wrap the model in a class that accepts a model on the CPU."""
    wrapper = cfg.get('model_wrapper_cfg')
    if wrapper is None:  # then mmengine chooses, and reads another key
        wrapper = dict(
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
    kind = MMDistributedDataParallel
    if 'type' in wrapper:
        kind = class_of(wrapper, MODEL_WRAPPERS, scope_of(cfg))
    if kind is MMDistributedDataParallel:
        wrapper['type'] = PortableDistributedDataParallel.__name__
    elif kind is not None and issubclass(kind, DistributedDataParallel):
        wrapper['device_ids'] = None
    cfg.model_wrapper_cfg = wrapper
    return [f'no GPU: model_wrapper_cfg is now {dict(wrapper)}']
