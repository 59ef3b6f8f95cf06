"""One training at a time in a work dir; its lock ends with the process, its ranks with torchrun."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from normplug.launch.work_dir_lock import LOCK_FILE, lock_work_dir
from tests.launch.processes import TIMEOUT, start

HOLD = """
import os, sys, time
from normplug.launch.work_dir_lock import lock_work_dir
lock_work_dir(sys.argv[1])
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(600)
"""


@pytest.fixture
def other(project):
    """A process that holds the work dir's lock, with a forked child as a data loader has."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD, str(project.work_dir)],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    process.child = int(process.stdout.readline())
    yield process
    process.kill()
    os.kill(process.child, 9)  # it has the pipe, too
    process.communicate()


def test_a_second_training_is_refused_until_the_first_is_killed(project, train, refuses, other):
    message = f'another training runs in work_dir {project.work_dir} (process {other.pid} on '
    advice = '); wait for it, or choose another --work-dir'
    refuses(train, [project.config], message, advice)
    refuses(
        train,
        [project.config, '--work-dir', f'{project.work_dir}/../work'],
        f'(process {other.pid} on ',
    )
    other.kill()
    other.wait()
    os.kill(other.child, 0)  # lives, without the lock
    assert train([str(project.config)]) == 0
    owner = (project.work_dir / LOCK_FILE).read_text()
    assert owner.startswith(f'process {os.getpid()} on ')


def test_a_training_that_is_dying_is_waited_for(project, train, other):
    timer = threading.Timer(1, other.kill)
    timer.start()
    assert train([str(project.config)]) == 0
    timer.join()


def test_a_test_needs_no_lock(project, run_test, other):
    checkpoint = project.save_checkpoint('whole.pth')
    assert run_test([str(project.config), checkpoint]) == 0


def test_a_process_trains_twice(project, train):
    assert train([str(project.config)]) == 0
    assert train([str(project.config), '--resume']) == 0
    code = f'from normplug.launch.work_dir_lock import *; lock_work_dir({str(project.work_dir)!r})'
    second = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert f'(process {os.getpid()} on ' in second.stderr


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def lockf(*_):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(fcntl, 'lockf', lockf)
    (note,) = lock_work_dir(str(tmp_path))
    assert note.startswith(f'work_dir {tmp_path} cannot be locked (No locks available): ')


def is_running(pid):
    """Whether any thread lives: the first may be a zombie while others still hold the lock."""
    try:
        states = [
            path.read_text().rpartition(')')[2].split()[0]
            for path in Path(f'/proc/{pid}/task').glob('*/stat')
        ]
    except (FileNotFoundError, ProcessLookupError):
        return Path(f'/proc/{pid}').exists()
    return any(state not in 'ZX' for state in states)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='needs prctl')
def test_sigkill_of_the_launcher_ends_all(project):
    more = 'train_cfg.update(max_iters=100000, val_interval=100000)\n'
    process = start('dist_train.sh', project.write_config(more), 2)
    for line in process.stdout:
        if 'Iter(train)' in line:
            break
    children = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
    ranks = [int(pid) for pid in children]
    try:
        assert len(ranks) == 2
        assert all(map(is_running, ranks))
        process.kill()
        deadline = time.monotonic() + TIMEOUT
        while any(map(is_running, ranks)):
            assert time.monotonic() < deadline, 'the ranks outlive their launcher'
            time.sleep(0.1)
        assert lock_work_dir(str(project.work_dir)) == []
    finally:
        for pid in filter(is_running, ranks):
            os.kill(pid, 9)
        process.communicate()
