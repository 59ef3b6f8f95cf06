"""Run torchrun for tools/dist_train.sh and tools/dist_test.sh, with checks before and after it.

``python -m normplug.launch.torchrun tools/train.py CONFIG NUM_PROC [ARGS]``
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from normplug.errors import UserError, exit_code

from .cli import read_test_config, read_train_config

__all__ = ['main']


@dataclass(frozen=True)
class _Tool:
    files: tuple[str, ...]  # the arguments before NUM_PROC
    read_config: Callable[[Sequence[str]], Config]


_TOOLS = {
    'train': _Tool(('CONFIG',), read_train_config),
    'test': _Tool(('CONFIG', 'CHECKPOINT'), read_test_config),
}
_DEFAULT_PORT = 29500  # where several nodes must agree on one; torch's


def main(argv: Sequence[str]) -> int:
    """Run the tool at ``argv[0]`` on N processes and return the exit code.

    It is 0, 2 after an error by the user, or that of the first rank that failed (128 + n after
    signal n).
    """
    script, *args = argv
    name = Path(script).stem
    failed = 0

    def launch() -> None:
        nonlocal failed
        failed = _launch(script, name, args)

    return exit_code(launch, f'tools/dist_{name}.sh') or failed


def _launch(script: str, name: str, args: list[str]) -> int:
    files, processes, rest = _split(name, args)
    nodes = _node_options(name)
    # Read it once here, before N processes read it and each complains.
    asked = _TOOLS[name].read_config([*files, '--launcher', 'pytorch', *rest]).launcher
    if asked != 'pytorch':
        raise UserError(
            f'--launcher {asked} contradicts tools/dist_{name}.sh, which sets --launcher pytorch: '
            f'drop it, or run tools/{name}.py for one process'
        )
    cores = len(os.sched_getaffinity(0))
    for library in ('OMP', 'MKL'):
        os.environ.setdefault(f'{library}_NUM_THREADS', str(max(1, cores // processes)))
    options = [*nodes, f'--nproc_per_node={processes}']
    try:
        run.run(run.parse_args([*options, script, *files, '--launcher', 'pytorch', *rest]))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        how = f'with exit code {code}' if code > 0 else f'by {signal.Signals(-code).name}'
        print(
            f'tools/dist_{name}.sh: rank {rank} (process {failure.pid}) ended {how}; '
            'the other ranks of this node were ended too',
            file=sys.stderr,
        )
        return code if code > 0 else 128 - code
    except SignalException as error:
        print(f'tools/dist_{name}.sh: ended by {error.sigval.name}, all ranks too', file=sys.stderr)
        return 128 + error.sigval
    return 0


def _split(name: str, args: list[str]) -> tuple[list[str], int, list[str]]:
    """Return what stands before NUM_PROC, NUM_PROC, and what stands behind."""
    wanted = _TOOLS[name].files
    usage = f'usage: tools/dist_{name}.sh {" ".join(wanted)} NUM_PROC [ARGS of tools/{name}.py]'
    if len(args) <= len(wanted):
        raise UserError(f'{[*wanted, "NUM_PROC"][len(args)]} is missing\n{usage}')
    files, number, rest = args[: len(wanted)], args[len(wanted)], args[len(wanted) + 1 :]
    if not number.isdecimal() or int(number) < 1:
        raise UserError(f'NUM_PROC must be a number of processes, got {number!r}\n{usage}')
    gpus = torch.cuda.device_count()
    if 0 < gpus < int(number):
        raise UserError(
            f'NUM_PROC={number} is more than the {gpus} GPUs of this machine '
            '(CUDA_VISIBLE_DEVICES counts): one process a GPU'
        )
    return files, int(number), rest


def _node_options(name: str) -> list[str]:
    """torchrun's options from NNODES, NODE_RANK, MASTER_ADDR and PORT."""
    nodes = _number('NNODES', 1, 1)
    if nodes > 1:
        missing = [key for key in ('NODE_RANK', 'MASTER_ADDR') if key not in os.environ]
        if missing:
            raise UserError(
                f'NNODES={nodes} also needs {", ".join(missing)}: NODE_RANK counts the nodes from '
                '0, MASTER_ADDR is the address of node 0'
            )
    node = _number('NODE_RANK', 0, 0)
    if node >= nodes:
        raise UserError(
            f'NODE_RANK={node} does not fit NNODES={nodes}: ranks count from 0 to {nodes - 1}'
        )
    if nodes == 1 and 'PORT' not in os.environ:
        port = _free_port()
    else:
        port = _number('PORT', _DEFAULT_PORT, 1)
        if port > 65535:
            raise UserError(f'PORT={port} is not a port: 1 to 65535')
        if node == 0 and not _is_free(port):
            raise UserError(
                f'port {port} is in use on this machine; choose another: '
                f'PORT={_free_port()} tools/dist_{name}.sh ...'
                + (' (the same on all nodes)' if nodes > 1 else '')
            )
    # A MASTER_ADDR left in the environment may be that of a machine far away.
    address = os.environ['MASTER_ADDR'] if nodes > 1 else '127.0.0.1'
    return [
        f'--nnodes={nodes}',
        f'--node_rank={node}',
        f'--master_addr={address}',
        f'--master_port={port}',
    ]


def _number(key: str, default: int, least: int) -> int:
    value = os.environ.get(key, str(default))
    if not value.isdecimal() or int(value) < least:
        raise UserError(f'{key} must be a number from {least} on, got {value!r}')
    return int(value)


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As torch binds: a port whose last connections are still closing is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(('', port))
            probe.listen()
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(('', 0))
        return probe.getsockname()[1]


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
