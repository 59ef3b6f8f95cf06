"""Environments that lack some of the mm packages: what needs them is skipped, the rest passes."""

import re
from pathlib import Path

import pytest
from environments import MM, environment_without, run

ROOT = Path(__file__).parents[2]
# What shows within seconds that a package is not needed, and is skipped where it is.
TESTS = [
    'tests/compat',
    'tests/configs/test_configs.py',
    'tests/hooks/test_norm_report.py',
    'tests/mm/test_mm_build.py',
    'tests/mm/test_mm_state_dict_names.py',
    'tests/norms/test_sn.py',
    'tests/test_optim.py',
    'tests/test_environment.py',
]
REGISTERED = """
import normplug
from mmengine.registry import HOOKS, MODELS
for name, norm in normplug.NORMS.items():
    assert isinstance(MODELS.build(dict(type=name, num_features=4)), norm), name
assert HOOKS.get('NormReportHook')
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    'missing',
    [{'mmdet'}, {'mmseg'}, {'mmpretrain'}, {'mmaction'}, set(MM)],
    ids=lambda m: '+'.join(sorted(m)),
)
def test_the_rest_works(missing, tmp_path):
    python = environment_without(tmp_path / 'venv', missing)
    for name in missing:
        run(python, '-c', f'import {name}', cwd=tmp_path, returncode=1)
    # The environment's own normplug is an editable one: this repository, or another installed one.
    run(python, '-c', REGISTERED, cwd=ROOT)
    out = run(python, '-m', 'normplug', cwd=tmp_path)
    for name in missing - {'mmcv'}:
        assert f'info: {MM[name]} is not installed: its models are not available.' in out
    assert 'Training can work here.' in out

    pytest_options = ('-q', '-m', 'not slow', '-p', 'no:cacheprovider')
    out = run(python, '-m', 'pytest', *pytest_options, *TESTS, cwd=ROOT)
    counts = {word: int(count) for count, word in re.findall(r'(\d+) (passed|skipped)', out)}
    assert counts['passed'] > 100
    assert counts['skipped'] > 0


@pytest.mark.slow
def test_every_test_can_be_collected_without_any(tmp_path):
    python = environment_without(tmp_path / 'venv', set(MM))
    out = run(python, '-m', 'pytest', '-q', '--collect-only', '-p', 'no:cacheprovider', cwd=ROOT)
    assert 'error' not in out.splitlines()[-1]
