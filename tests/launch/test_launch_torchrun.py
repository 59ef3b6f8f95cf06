"""tools/dist_train.sh and dist_test.sh: what they refuse to begin. No process starts here."""

import socket

import pytest
import torch

from normplug.launch import torchrun

USAGE = 'usage: tools/dist_train.sh CONFIG NUM_PROC [ARGS of tools/train.py]'


@pytest.fixture
def dist_refuses(monkeypatch, capsys, project):
    """Run the launcher, which must refuse: exit code 2, one message, no process, no file."""
    for name in ('NNODES', 'NODE_RANK', 'MASTER_ADDR', 'PORT'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.setenv('MKL_NUM_THREADS', '1')
    started = []
    monkeypatch.setattr(torchrun.run, 'run', started.append)

    def check(argv, *messages, tool='train', **env):
        for name, value in env.items():
            monkeypatch.setenv(name, str(value))
        before = project.files()
        assert torchrun.main([f'tools/{tool}.py', *map(str, argv)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f'tools/dist_{tool}.sh: error: ')
        for message in messages:
            assert message in error
        assert project.files() == before
        assert not started

    check.started = started
    return check


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        ([], 'CONFIG is missing'),
        (['c.py'], 'NUM_PROC is missing'),
        (['c.py', 'two'], "NUM_PROC must be a number of processes, got 'two'"),
        (['c.py', '0'], "NUM_PROC must be a number of processes, got '0'"),
        (['c.py', '-1'], "NUM_PROC must be a number of processes, got '-1'"),
        (['c.py', '--amp', '2'], "NUM_PROC must be a number of processes, got '--amp'"),
    ],
)
def test_arguments(dist_refuses, argv, message):
    dist_refuses(argv, message, USAGE)


def test_arguments_of_a_test(dist_refuses):
    dist_refuses(['c.py'], 'CHECKPOINT is missing', 'usage: tools/dist_test.sh', tool='test')
    dist_refuses(['c.py', 'e.pth'], 'NUM_PROC is missing', tool='test')
    dist_refuses(['c.py', '2', 'e.pth'], "got 'e.pth'", tool='test')


def test_missing_config_is_told_before_any_process_starts(dist_refuses):
    dist_refuses(['no/such.py', 2], 'config file no/such.py does not exist')


def test_unknown_option_is_told_before_any_process_starts(dist_refuses, project, capsys):
    with pytest.raises(SystemExit, match='2'):
        torchrun.main(['tools/train.py', project.write_config(), '2', '--no-such'])
    assert 'unrecognized arguments: --no-such' in capsys.readouterr().err
    assert not dist_refuses.started


def test_more_processes_than_gpus(dist_refuses, project, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    dist_refuses([project.write_config(), 3], 'NUM_PROC=3 is more than the 2 GPUs')


@pytest.mark.parametrize(
    ('env', 'message'),
    [
        ({'NNODES': 'x'}, "NNODES must be a number from 1 on, got 'x'"),
        ({'NNODES': 0}, "NNODES must be a number from 1 on, got '0'"),
        ({'NNODES': 2}, 'NNODES=2 also needs NODE_RANK, MASTER_ADDR'),
        ({'NNODES': 2, 'NODE_RANK': 1}, 'NNODES=2 also needs MASTER_ADDR'),
        ({'NODE_RANK': 1}, 'NODE_RANK=1 does not fit NNODES=1'),
        ({'NNODES': 2, 'NODE_RANK': 2, 'MASTER_ADDR': 'a'}, 'NODE_RANK=2 does not fit NNODES=2'),
        ({'NODE_RANK': -1}, "NODE_RANK must be a number from 0 on, got '-1'"),
        ({'PORT': 'http'}, "PORT must be a number from 1 on, got 'http'"),
        ({'PORT': 65536}, 'PORT=65536 is not a port'),
    ],
    ids=str,
)
def test_environment(dist_refuses, project, env, message):
    dist_refuses([project.write_config(), 2], message, **env)


@pytest.mark.parametrize('nodes', [1, 2])
def test_port_in_use(dist_refuses, project, nodes):
    with socket.socket() as other:
        other.bind(('', 0))
        other.listen()
        port = other.getsockname()[1]
        env = {'PORT': port, 'NNODES': nodes, 'NODE_RANK': 0, 'MASTER_ADDR': '127.0.0.1'}
        message = f'port {port} is in use on this machine; choose another: PORT='
        dist_refuses([project.write_config(), 2], message, **env)


def test_only_the_first_node_needs_the_port(dist_refuses, project, monkeypatch):
    with socket.socket() as other:
        other.bind(('', 0))
        other.listen()
        env = {'PORT': other.getsockname()[1], 'NNODES': 2, 'NODE_RANK': 1, 'MASTER_ADDR': 'a'}
        for name, value in env.items():
            monkeypatch.setenv(name, str(value))
        assert torchrun.main(['tools/train.py', project.write_config(), '2']) == 0
    (args,) = dist_refuses.started
    assert (args.nnodes, args.node_rank, args.nproc_per_node) == ('2', 1, '2')


def test_a_free_port_is_chosen_on_one_node(dist_refuses, project):
    for _ in range(2):
        assert torchrun.main(['tools/train.py', project.write_config(), '2', '--amp']) == 2
        assert torchrun.main(['tools/train.py', project.write_config(), '2', '--resume']) == 0
    first, second = dist_refuses.started
    assert first.master_port != second.master_port
    assert first.training_script_args[-3:] == ['--launcher', 'pytorch', '--resume']


@pytest.mark.parametrize('option', [['--launcher', 'none'], ['--launcher=slurm'], ['--lau', 'mpi']])
def test_another_launcher(dist_refuses, project, option):
    message = 'contradicts tools/dist_train.sh, which sets --launcher pytorch: drop it'
    dist_refuses([project.write_config(), 2, *option], message)


def test_one_node_is_this_machine(dist_refuses, project, monkeypatch):
    monkeypatch.setenv('MASTER_ADDR', '10.0.0.1')
    argv = ['tools/train.py', project.write_config(), '2']
    assert torchrun.main(argv) == 0
    for name, value in {'NNODES': '2', 'NODE_RANK': '1'}.items():
        monkeypatch.setenv(name, value)
    assert torchrun.main(argv) == 0
    assert [args.master_addr for args in dist_refuses.started] == ['127.0.0.1', '10.0.0.1']
