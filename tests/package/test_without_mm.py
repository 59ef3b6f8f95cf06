"""Environments that lack some of the mm packages: what needs them is skipped, the rest passes."""

import re
from pathlib import Path

import pytest
from environments import MM, environment_without, run

ROOT = Path(__file__).parents[2]
# What shows within seconds that a package is not needed, and is skipped where it is.
TESTS = [
    'tests/compat',
    'tests/hooks/test_norm_report.py',
    'tests/mm/test_mm_build.py',
    'tests/mm/test_mm_state_dict_names.py',
    'tests/norms/test_sn.py',
    'tests/test_optim.py',
    'tests/test_environment.py',
]
# A config of each package.
CONFIGS = [
    f'tests/configs/test_configs.py::test_norms_are_where_the_config_promises[{name}]'
    for name in (
        'faster_rcnn/faster-rcnn_r18-w32_fpn_sn_digits.py',
        'fcn/fcn_r18-d8-w32_sn_digits.py',
        'pretrain/resnet18-w32_sn_digits.py',
        'i3d/i3d_r50_sn_8xb8_kinetics.py',
    )
]


@pytest.mark.slow
@pytest.mark.parametrize(
    'missing',
    # The other mm packages import mmdet and mmpretrain where they are there, and no other.
    [{'mmdet', 'mmpretrain'}, set(MM)],
    ids=lambda m: '+'.join(sorted(m)),
)
def test_the_rest_works(missing, tmp_path):
    """Without any, every test can be collected all the same."""
    python = environment_without(tmp_path / 'venv', missing)
    for name in missing:
        run(python, '-c', f'import {name}', cwd=tmp_path, returncode=1)
    out = run(python, '-m', 'normplug', cwd=tmp_path)
    for name in missing - {'mmcv'}:
        assert f'info: {MM[name]} is not installed: its models are not available.' in out
    assert 'Training can work here.' in out

    pytest_options = ('-q', '-m', 'not slow', '-p', 'no:cacheprovider')
    chosen = [*TESTS, *CONFIGS]
    if missing == set(MM):
        chosen = ['tests', '-k', ' or '.join(Path(path).name for path in TESTS)]
    out = run(python, '-m', 'pytest', *pytest_options, *chosen, cwd=ROOT)
    counts = {word: int(count) for count, word in re.findall(r'(\d+) (passed|skipped)', out)}
    assert counts['passed'] > 100
    assert counts['skipped'] > 0
