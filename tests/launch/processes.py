"""The launch scripts, run as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
# A rank that fails must not leave the others waiting; a start of all takes seconds.
TIMEOUT = 150


def start(script, *argv, **env):
    """Start ``tools/<script>`` with the tests' modules importable."""
    program = [sys.executable] if script.endswith('.py') else ['bash']
    clean = {name: value for name, value in os.environ.items() if not name.startswith('SLURM')}
    return subprocess.Popen(
        [*program, str(ROOT / 'tools' / script), *map(str, argv)],
        env={
            **clean,
            'PYTHON': sys.executable,
            'PYTHONPATH': os.pathsep.join([str(Path(__file__).parent), str(ROOT)]),
            'OMP_NUM_THREADS': '1',
            **{name: str(value) for name, value in env.items()},
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Wait for it; return its exit code and what it wrote to stdout and stderr."""
    try:
        out, err = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.terminate()  # torchrun ends the ranks
        out, err = process.communicate()
        raise AssertionError(f'hangs:\n{out}\n{err}') from None
    return process.returncode, out, err


def launch(script, *argv, **env):
    return finish(start(script, *argv, **env))


def launched(script, *argv, **env):
    """Run it to its good end and return what it printed."""
    code, out, err = launch(script, *argv, **env)
    assert code == 0, f'{out}\n{err}'
    return out


def assert_ranks_agree(work_dir, size):
    """Parameters and buffers of all ranks are the same, bit for bit; no loss was lost."""
    ranks = [torch.load(work_dir / f'rank{rank}.pt') for rank in range(size)]
    for rank in ranks:
        assert torch.isfinite(torch.tensor(rank['losses'])).all()
        assert rank['state'].keys() == ranks[0]['state'].keys()
        for name, value in rank['state'].items():
            assert torch.equal(value, ranks[0]['state'][name]), name
    # They did train on different samples.
    assert ranks[0]['losses'] != ranks[1]['losses']
    assert len(list(work_dir.glob('*/*.log'))) == 1
