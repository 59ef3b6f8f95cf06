"""Trainings on several gloo processes, by the scripts that users start them with."""

import os
import re
import socket
from datetime import timedelta

import pytest
import torch
from mmengine.config import Config

from normplug.launch import distributed
from tests.launch.processes import assert_ranks_agree, finish, launch, launched, start

HOOKS = "custom_imports['imports'] += ['distributed_hooks']\ncustom_hooks = [{hook}]\n"
SAVE_RANKS = HOOKS.format(hook="dict(type='SaveRankHook')")


def free_port():
    with socket.socket() as probe:
        probe.bind(('', 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_two_processes(project):
    launched('dist_train.sh', project.write_config(SAVE_RANKS), 2)
    assert_ranks_agree(project.work_dir, 2)
    assert (project.work_dir / 'last_checkpoint').read_text().endswith('iter_4.pth')
    log = project.log()
    assert 'no GPU: 2 processes communicate by gloo instead of nccl' in log
    assert 'no GPU: model_wrapper_cfg is now ' in log
    assert len(re.findall(r'Iter\(train\) \[\d/4\]', log)) == 4


@pytest.mark.slow
def test_two_nodes(project):
    """Two launchers on one machine."""
    config, port = project.write_config(SAVE_RANKS + "sync_bn = 'torch'\n"), free_port()
    nodes = [
        start(
            'dist_train.sh', config, 1,
            NNODES=2, NODE_RANK=node, MASTER_ADDR='127.0.0.1', PORT=port,
        )
        for node in (1, 0)
    ]  # fmt: skip
    for code, out, err in map(finish, nodes):
        assert code == 0, f'{out}\n{err}'
    assert_ranks_agree(project.work_dir, 2)
    assert '1 SyncBN layers run as PortableSyncBN' in project.log()


@pytest.mark.slow
def test_an_error_of_all_ranks_is_told_once(project):
    (project.data / 'val.json').unlink()
    before = project.files()
    code, out, err = launch('dist_train.sh', project.config, 2)
    assert code == 2
    assert (out + err).count('data of the config does not exist') == 1
    assert 'Traceback' not in out + err
    assert project.files() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ('how', 'exit_code', 'message'),
    [
        ('kill', 137, r'dist_train.sh: rank 1 \(process \d+\) ended by SIGKILL; the other ranks'),
        ('raise', 2, 'tools/train.py: error: one rank cannot go on'),
    ],
)
def test_a_rank_that_fails_ends_all(project, how, exit_code, message):
    fail = HOOKS.format(hook=f"dict(type='FailHook', rank=1, iteration=5, how='{how}')")
    endless = 'train_cfg.update(max_iters=100000, val_interval=100000)\n'
    code, out, err = launch('dist_train.sh', project.write_config(fail + endless), 2)
    assert code == exit_code, f'{out}\n{err}'
    assert len(re.findall(message, err)) == 1
    last = (project.work_dir / 'last_checkpoint').read_text()
    assert last.endswith('iter_4.pth')
    assert torch.load(last, weights_only=False)['meta']['iter'] == 4


@pytest.mark.slow
def test_a_signal_to_the_launcher_ends_all(project):
    more = SAVE_RANKS + 'train_cfg.update(max_iters=100000, val_interval=100000)\n'
    process = start('dist_train.sh', project.write_config(more), 2)
    for line in process.stdout:
        if 'Iter(train)' in line:
            break
    process.terminate()
    code, out, err = finish(process)
    assert code == 143, f'{out}\n{err}'
    assert 'dist_train.sh: ended by SIGTERM, all ranks too' in err
    assert not list(project.work_dir.glob('rank*.pt'))


def test_no_python(tmp_path):
    code, out, err = launch('dist_train.sh', PYTHON=tmp_path / 'python')
    assert (code, out) == (2, '')
    assert err.splitlines() == [
        f'tools/python.sh: error: there is no {tmp_path}/python; run make setup, or set PYTHON'
    ]


# What srun does for one node: the tasks, each told who it is, until one fails.
SRUN = """#!/usr/bin/env bash
echo "$@" > {folder}/srun.txt
while [[ $1 = --* ]]; do
    [[ $1 != --ntasks=* ]] || export SLURM_NTASKS=${{1#*=}}
    shift
done
export SLURM_NODELIST='node[1-2]'
for ((i = 0; i < SLURM_NTASKS; i++)); do
    SLURM_PROCID=$i SLURM_LOCALID=$i "$@" &
done
while [ "$(jobs -r)" ]; do
    wait -n || {{ kill $(jobs -p); exit 1; }}
done
"""
SCONTROL = '#!/usr/bin/env bash\n[ "$*" = "show hostnames node[1-2]" ] && echo 127.0.0.1\n'


@pytest.fixture
def slurm(tmp_path):
    """A PATH with srun and scontrol for one machine."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    for name, text in {'srun': SRUN.format(folder=folder), 'scontrol': SCONTROL}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return {'PATH': f'{folder}{os.pathsep}{os.environ["PATH"]}'}


@pytest.mark.slow
def test_slurm(project, slurm):
    config = project.write_config(SAVE_RANKS)
    env = {**slurm, 'GPUS': 2, 'GRES': 'none', 'SRUN_ARGS': '--exclusive --mem=0'}
    launched(
        'slurm_train.sh', 'part', 'job', config, '--cfg-options', 'train_cfg.max_iters=2', **env
    )
    assert_ranks_agree(project.work_dir, 2)
    words = (project.folder / 'bin/srun.txt').read_text().split()
    options = '--partition=part --job-name=job --ntasks=2 --ntasks-per-node=2 --cpus-per-task=5'
    assert words[:8] == [*options.split(), '--kill-on-bad-exit=1', '--exclusive', '--mem=0']

    checkpoint = project.work_dir / 'iter_2.pth'
    out = launched('slurm_test.sh', 'part', 'job', config, checkpoint, **env)
    assert 'accuracy:' in out


def test_slurm_arguments(slurm, tmp_path):
    usage = 'usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [ARGS of tools/train.py]'
    for argv, env, message in (
        ([], {}, 'PARTITION is missing'),
        (['part', 'job'], {}, 'CONFIG is missing'),
        (['part', 'job', 'c.py'], {'GPUS': 'all'}, "GPUS must be a positive number, got 'all'"),
        (['part', 'job', 'c.py'], {'PORT': '0'}, "PORT must be a positive number, got '0'"),
        (['part', 'job', 'c.py'], {'PATH': '/usr/bin:/bin'}, 'there is no srun here'),
    ):
        code, _, err = launch('slurm_train.sh', *argv, **{**slurm, **env})
        assert code == 2, err
        assert err.splitlines()[0].startswith(f'tools/slurm_train.sh: error: {message}')
        assert err.splitlines()[1:] == [usage]
    assert not (tmp_path / 'bin/srun.txt').exists()
    code, _, err = launch('slurm_test.sh', 'part', 'job', 'c.py', **slurm)
    assert (code, 'CHECKPOINT is missing' in err) == (2, True)


PORTABLE = 'PortableDistributedDataParallel'
PLACE = {'RANK': 0, 'WORLD_SIZE': 2, 'LOCAL_RANK': 0, 'MASTER_ADDR': '127.0.0.1'}


@pytest.mark.parametrize(
    ('launcher', 'env', 'more', 'message'),
    [
        ('pytorch', {}, '', 'environment variables RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, '
         'MASTER_PORT: start the processes by tools/dist_train.sh'),
        ('slurm', {}, '', 'SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID, SLURM_NODELIST: start the '
         'processes by tools/slurm_train.sh'),
        ('mpi', {}, '', 'OMPI_COMM_WORLD_RANK'),
        ('pytorch', {'RANK': 2}, '', 'RANK=2 does not fit WORLD_SIZE=2: ranks count from 0 to 1'),
        ('pytorch', {'WORLD_SIZE': 'two'}, '',
         "WORLD_SIZE='two' in the environment is not a number"),
        ('pytorch', {'MASTER_PORT': 'x'}, '', "MASTER_PORT='x' in the environment is not a port"),
        ('pytorch', {'RANK': 0}, "env_cfg = dict(dist_cfg=dict(timeout='long'))\n",
         "env_cfg.dist_cfg.timeout must be a number of seconds above 0, got 'long'"),
        ('pytorch', {'RANK': 0}, "sync_bn = 'yes'\n", "sync_bn must be 'torch' or 'mmcv', got"),
        ('pytorch', {'RANK': 0}, 'env_cfg = dict(dist_cfg=dict(timeout=1))\n',
         'the 2 processes do not find each other at 127.0.0.1:'),
    ],
)  # fmt: skip
def test_who_this_process_is(project, train, refuses, monkeypatch, launcher, env, more, message):
    for name in (*PLACE, 'MASTER_PORT'):
        monkeypatch.delenv(name, raising=False)
    if env:
        for name, value in {**PLACE, 'MASTER_PORT': free_port(), **env}.items():
            monkeypatch.setenv(name, str(value))
    refuses(train, [project.write_config(more), '--launcher', launcher], message)


@pytest.mark.parametrize(
    ('more', 'wrapper'),
    [
        ({}, {'type': PORTABLE, 'broadcast_buffers': False, 'find_unused_parameters': False}),
        (
            {'find_unused_parameters': True},
            {'type': PORTABLE, 'broadcast_buffers': False, 'find_unused_parameters': True},
        ),
        (
            {'model_wrapper_cfg': {'static_graph': True}},
            {'type': PORTABLE, 'static_graph': True},
        ),
        (
            {'model_wrapper_cfg': {'type': 'MMSeparateDistributedDataParallel'}},
            {'type': 'MMSeparateDistributedDataParallel', 'device_ids': None},
        ),
        (
            {'model_wrapper_cfg': {'type': 'MMFullyShardedDataParallel'}},
            {'type': 'MMFullyShardedDataParallel'},
        ),
    ],
    ids=str,
)
def test_model_wrapper_on_a_machine_without_gpu(monkeypatch, more, wrapper):
    monkeypatch.setattr(distributed, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(distributed, 'is_distributed', lambda: True)
    cfg = Config({'launcher': 'pytorch', **more})
    (note,) = distributed.join_process_group(cfg)
    assert cfg.model_wrapper_cfg == wrapper
    assert note == f'no GPU: model_wrapper_cfg is now {dict(cfg.model_wrapper_cfg)}'


def test_a_rank_without_a_gpu(project, train, refuses, monkeypatch):
    for name, value in {**PLACE, 'MASTER_PORT': 1, 'LOCAL_RANK': 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    argv = [project.write_config(), '--launcher', 'pytorch']
    refuses(train, argv, 'LOCAL_RANK=1 needs GPU 1, but this machine has 1')


def test_port_in_use_without_torchrun(project, train, refuses, monkeypatch):
    with socket.socket() as other:
        other.bind(('', 0))
        other.listen()
        port = other.getsockname()[1]
        for name, value in {**PLACE, 'MASTER_PORT': port}.items():
            monkeypatch.setenv(name, str(value))
        argv = [project.write_config(), '--launcher', 'pytorch']
        refuses(train, argv, f'127.0.0.1:{port}', 'choose another by PORT=')


def test_a_process_that_never_comes(project, train, refuses, monkeypatch):
    port = free_port()
    for name, value in {**PLACE, 'WORLD_SIZE': 3, 'MASTER_PORT': port}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(distributed, '_RENDEZVOUS', timedelta(seconds=2))
    monkeypatch.setattr(distributed, '_NOTICE_AFTER', 0.1)
    refuses(
        train, [project.write_config(), '--launcher', 'pytorch'],
        f'waiting for 3 processes at 127.0.0.1:{port} (MASTER_ADDR:MASTER_PORT)',
        f'the 3 processes do not find each other at 127.0.0.1:{port}',
    )  # fmt: skip


@pytest.mark.parametrize(('timeout', 'seconds'), [(None, 1800), (7, 7)])
def test_collectives_wait_as_long_as_before(monkeypatch, timeout, seconds):
    for name, value in {**PLACE, 'WORLD_SIZE': 1, 'MASTER_PORT': free_port()}.items():
        monkeypatch.setenv(name, str(value))
    found = distributed._rendezvous(timeout)
    assert (found['rank'], found['world_size']) == (0, 1)
    assert found['store'].timeout == timedelta(seconds=seconds)


def test_several_processes_without_a_launcher(project, train, refuses, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    refuses(train, [project.write_config()], 'WORLD_SIZE=2', 'Add --launcher pytorch')
    monkeypatch.setenv('WORLD_SIZE', '1')
    assert train([str(project.config)]) == 0
