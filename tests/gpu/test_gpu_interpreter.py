"""Whole code written for a GPU, run in Triton's interpreter, computes what plain torch does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('triton')
ROOT = Path(__file__).parents[2]


def run(module, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, '-m', f'tests.gpu.{module}', *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, 'NORMPLUG_BACKEND': 'eager', **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@pytest.mark.slow
def test_scales_as_plain_torch(tmp_path):
    run('written_code', tmp_path / 'cases.pickle')
    rows = run('interpreted_code', tmp_path / 'cases.pickle', TRITON_INTERPRET='1')
    assert len(rows) == 2 * 6  # forward and backward


@pytest.mark.slow
def test_whitening_as_plain_torch_in_every_class():
    rows = run('interpreted_whitening', TRITON_INTERPRET='1')
    assert len(rows) == 2 * 15
