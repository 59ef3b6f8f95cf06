"""The code that Inductor writes for a GPU: few launches, no spills, wide loads, float32 rules."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('triton')

# Norm, (N, C, P), dtype, layout, mode: most launches of each step. A process for each group, which
# takes seconds to start.
STEM, BOXES = '2x64x268800', '1024x256x49'
LIMITS = {
    'SN': {
        f'SN,{STEM},float32,first,train': (5, 6),
        f'SN,{STEM},float32,first,eval': (6, 5),
        f'SN,{STEM},float16,last,train': (9, 10),
        f'SN,{BOXES},float16,last,train': (7, 7),
        'SN,2x2048x1050,float16,last,train': (4, 6),
        f'SN,{BOXES},float32,first,train': (7, 7),
    },
    'other scales': {
        f'KN,{STEM},float32,first,train': (6, 6),
        f'SSN,{STEM},float32,first,train': (6, 8),
        f'IBN,{STEM},float32,first,train': (6, 6),
        f'GhostBN,{STEM},float32,first,train': (6, 5),
        f'IBN,{STEM},bfloat16,first,train': (6, 6),
    },
    'scales over ranks': {
        f'SyncSN,{STEM},float32,first,train': (4, 2, 2, 8, 2),
        f'SyncSSN,{STEM},float32,first,train': (4, 2, 4, 10, 2),
    },
    'league': {
        f'BRN,{STEM},float32,first,train': (6, 5),
        f'MABN,{STEM},float32,first,train': (5, 5),
        f'CBN,{STEM},float32,first,train': (13, 16),
        f'BCN,{STEM},float32,first,train': (8, 8),
        f'FRN,{STEM},float32,first,train': (3, 4),
        f'BIN,{STEM},float32,first,train': (6, 6),
    },
    'whitening': {
        f'SW,{STEM},float32,first,train': (17, 31),
        f'IterNorm,{STEM},float32,first,train': (18, 27),
        f'GW,{STEM},float32,first,train': (14, 26),
    },
    'whitening over ranks': {
        f'SyncSW,{STEM},float32,first,train': (8, 5, 9, 28, 4),
        f'SyncIterNorm,{STEM},float32,first,train': (8, 3, 10, 23, 4),
    },
}
# Bytes, in which the assembler keeps one value once: SyncSN's float64, on sm_80 alone.
SPILLED = {
    f'SyncSN,{STEM},float32,first,train': 8,
}


@pytest.mark.slow
@pytest.mark.parametrize('group', LIMITS)
def test_it_compiles_without_spills_and_loads_widely(group):
    done = subprocess.run(
        [sys.executable, '-m', 'tests.gpu.gpu_code', *LIMITS[group]],
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{')]
    for case, limits in LIMITS[group].items():
        check(case, limits, [row for row in found if row['case'] == case])


def check(case, limits, rows):
    assert len(rows) == len(limits), case
    spilled = [size for row in rows for sizes in row['spills'].values() for size in sizes.values()]
    assert max(spilled, default=0) <= SPILLED.get(case, 0), rows
    aligned = f'{BOXES},float32,first' not in case  # 49 values
    assert not aligned or not any(row['narrow'] for row in rows), rows
    # What ranks exchange, and what KN predicts, is float64: else this could not have failed.
    exact = case.startswith(('Sync', 'KN'))
    assert all(bool(row['in_float64']) == exact for row in rows), rows
    assert all(row['launches'] <= most for row, most in zip(rows, limits, strict=True)), rows
