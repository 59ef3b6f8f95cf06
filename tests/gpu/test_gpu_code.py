"""The code that Inductor writes for a GPU: it compiles ahead of time, few launches, no spills."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('triton')

# Norm, (N, C, P), dtype, layout, mode: most launches of each step.
STEM, BOXES = '2x64x268800', '1024x256x49'
LIMITS = {
    f'SN,{STEM},float32,first,train': (6, 8),
    f'KN,{STEM},float32,first,train': (6, 6),
    f'SN,{STEM},float32,first,eval': (5, 7),
    f'SN,{STEM},float16,last,train': (8, 12),
    f'SSN,{STEM},float32,first,train': (8, 12),
    f'IBN,{STEM},float32,first,train': (6, 7),
    f'SN,{BOXES},float32,first,train': (9, 16),
}
# To be mended: a kernel of the step spills on these, however it is configured.
SPILLS = {
    f'SN,{STEM},float32,first,eval': {
        ('forward_step', '80'),
        ('forward_step', '90'),
        ('backward_step', '80'),
    },
    f'SN,{STEM},float32,first,train': {('backward_step', '80')},
    f'SSN,{STEM},float32,first,train': {('backward_step', '80'), ('backward_step', '90')},
}


@pytest.mark.slow
@pytest.mark.parametrize('case', LIMITS)
def test_the_code_compiles_without_spills(case):
    done = subprocess.run(
        [sys.executable, '-m', 'tests.gpu.gpu_code', case],
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    _, *rows = (json.loads(line) for line in done.stdout.splitlines() if line.startswith('{'))
    assert len(rows) == 2
    spills = {(row['step'], cc) for row in rows for cc, names in row['spills'].items() if names}
    assert spills == SPILLS.get(case, set()), rows
    assert all(row['launches'] <= most for row, most in zip(rows, LIMITS[case], strict=True)), rows
