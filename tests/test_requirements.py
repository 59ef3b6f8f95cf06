"""Without what all stands on, one clear message instead of a failure deep inside."""

import subprocess
import sys

import pytest

HIDE = """
import importlib.util, runpy, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == {name!r} else find(name, *a)
sys.argv = ['normplug']
runpy.run_module('normplug', run_name='__main__')
"""


@pytest.mark.slow
@pytest.mark.parametrize('name', ['torch', 'mmengine'])
def test_missing_package_is_named_with_the_command(name):
    script = HIDE.format(name=name)
    result = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert result.returncode != 0
    assert f'normplug needs {name}: pip install {name}' in result.stderr
