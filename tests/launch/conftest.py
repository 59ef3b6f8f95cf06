import importlib.util
import re
from pathlib import Path

import pytest
from launch_tiny import Project

TOOLS = Path(__file__).parents[2] / 'tools'


def _main(name):
    spec = importlib.util.spec_from_file_location(f'{name}_tool', TOOLS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(autouse=True)
def no_environment_report(monkeypatch):
    """Save a second a runner: for its log, mmengine asks the compilers for their versions."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)


@pytest.fixture
def train():
    return _main('train')


@pytest.fixture
def run_test():
    return _main('test')


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


@pytest.fixture
def refuses(project, capsys):
    """Run a tool that must refuse: exit code 2, one message without traceback, nothing written."""

    def check(tool, argv, *messages):
        before = project.files()
        capsys.readouterr()
        assert tool([str(arg) for arg in argv]) == 2
        error = capsys.readouterr().err
        assert 'Traceback' not in error
        assert re.search(r'tools/\w+\.py: error: ', error)
        for message in messages:
            assert message in error
        assert project.files() == before

    return check
