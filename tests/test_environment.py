"""The report of `python -m normplug`: what it finds wrong, what it tells to do, its exit codes."""

import subprocess
import sys

import pytest

import normplug
from normplug import NORMS, environment
from normplug.__main__ import main
from normplug.environment import Operators, Problem, check

GOOD = {
    'python': '3.11.7',
    'torch': '2.11.0+cu130',
    'torchvision': '0.26.0',
    'numpy': '2.3.5',
    'setuptools': '81.0.0',
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmdet': '3.3.0',
    'mmsegmentation': '1.2.2',
    'mmpretrain': '1.2.0',
    'mmaction2': '1.2.0',
    'normplug': '0.1.0',
}
TORCHVISION = Operators('torchvision')


def only(problems) -> Problem:
    assert len(problems) == 1, problems
    return problems[0]


@pytest.mark.parametrize('operators', [TORCHVISION, Operators('compiled')])
def test_the_supported_stack_has_no_problem(operators):
    assert check(GOOD, operators) == []


@pytest.mark.parametrize(
    'change',
    [
        {'torch': '2.7.0'},
        {'mmcv': '2.2.0', 'mmdet': None, 'mmsegmentation': None, 'mmaction2': None},
        {'mmcv': '2.2.0', 'mmdet': '3.4.0', 'mmsegmentation': '1.3.0', 'mmaction2': '1.3.0'},
        dict.fromkeys(GOOD, environment.UNKNOWN),
    ],
)
def test_no_error_where_nothing_is_known_to_be_wrong(change):
    assert all(problem.level == 'info' for problem in check(GOOD | change, TORCHVISION))


@pytest.mark.parametrize(
    ('change', 'level', 'message', 'command'),
    [
        ({'torch': '2.6.0'}, 'error', 'torch 2.6.0 is older than 2.7', '--upgrade torch torchv'),
        ({'setuptools': '82.0.1'}, 'error', 'pkg_resources', 'pip install "setuptools<82"'),
        ({'setuptools': None}, 'error', 'not installed', 'pip install "setuptools<82"'),
        ({'numpy': '2.4.0'}, 'warning', 'numpy 2.4.0 is newer', 'pip install "numpy<2.4"'),
        (
            {'mmcv': '2.2.0', 'mmsegmentation': '1.3.0', 'mmaction2': '1.3.0'},
            'error',
            'mmdet 3.3.0 refuses mmcv 2.2.0: it asserts mmcv < 2.2',
            'pip uninstall -y mmcv mmcv-full && pip install "mmcv-lite>=2.0.0rc4,<2.2"',
        ),
        (
            {'mmcv': '2.2.0', 'mmdet': '3.4.0', 'mmaction2': None},
            'error',
            'mmsegmentation 1.2.2 refuses mmcv 2.2.0',
            '"mmcv-lite>=2.0.0rc4,<2.2"',
        ),
        (
            {'mmcv': '2.2.0', 'mmdet': '3.4.0', 'mmsegmentation': '1.3.0'},
            'error',
            'mmaction2 1.2.0 refuses mmcv 2.2.0',
            '"mmcv-lite>=2.0.0rc4,<2.2"',
        ),
        (
            {'mmcv': None, 'mmsegmentation': None, 'mmpretrain': '1.2.0'},
            'error',
            'mmdet, mmpretrain, mmaction2 cannot be imported without mmcv',
            'pip install "mmcv-lite',
        ),
        ({'mmdet': None}, 'info', 'mmdet is not installed', 'pip install "mmdet>=3.3"'),
    ],
)
def test_each_problem_is_named_with_its_command(change, level, message, command):
    problems = check(GOOD | change, TORCHVISION)
    problem = problems[0]
    assert problem.level == level
    assert message in problem.message
    assert command in problem.command
    assert str(problem) == f'{level}: {problem.message} Run: {problem.command}'
    assert '\n' not in str(problem)
    assert [other.level for other in problems[1:]] == ['info'] * (len(problems) - 1)


def test_operators_that_do_not_load():
    problem = only(check(GOOD, Operators('compiled', 'undefined symbol: _ZN2at')))
    assert problem.level == 'error'
    assert "mmcv's compiled operators do not load: undefined symbol" in problem.message
    assert 'mmcv-lite' in problem.command

    failed = Operators('none', 'operator torchvision::nms does not exist')
    problem = only(check(GOOD, failed))
    assert problem.level == 'error'
    assert 'torchvision 0.26.0 does not fit torch 2.11.0+cu130 (operator' in problem.message
    assert problem.command == 'pip install --force-reinstall "torch==2.11.0" torchvision'

    problem = only(check(GOOD | {'torchvision': None}, failed))
    assert 'torchvision, which mmcv.ops needs here, is not installed' in problem.message
    assert problem.command == 'pip install "torch==2.11.0" torchvision'


def test_without_mm_packages_it_is_all_information():
    versions = GOOD | dict.fromkeys(['mmcv', 'mmdet', 'mmsegmentation', 'mmpretrain', 'mmaction2'])
    assert [p.level for p in check(versions, Operators('none'))] == ['info'] * 4


def test_installed_versions_are_those_of_the_modules():
    import mmengine
    import torch

    versions = environment.installed_versions()
    assert versions.keys() == GOOD.keys()
    assert torch.__version__.startswith(versions['torch'])
    assert versions['mmengine'] == mmengine.__version__


def test_a_missing_package_and_one_without_metadata(monkeypatch, tmp_path):
    (tmp_path / 'without_metadata.py').touch()
    monkeypatch.syspath_prepend(tmp_path)
    names = {'a': ('without_metadata', ['without-metadata']), 'b': ('not_there', ['not-there'])}
    monkeypatch.setattr(environment, '_PACKAGES', names)
    versions = environment.installed_versions()
    assert (versions['a'], versions['b']) == (environment.UNKNOWN, None)


def test_find_operators(monkeypatch):
    from normplug.compat import mmcv_ext

    assert environment.find_operators(GOOD | {'mmcv': None}) == Operators('none')
    monkeypatch.setattr(mmcv_ext, 'compiled_extension', lambda: None)
    monkeypatch.setitem(sys.modules, 'torchvision', None)
    source, failure = environment.find_operators(GOOD)
    assert source == 'none'
    assert failure.startswith('import of torchvision halted')
    monkeypatch.setattr(mmcv_ext, 'compiled_extension', lambda: 'mmcv/_ext.so')
    monkeypatch.setitem(sys.modules, 'mmcv._ext', None)
    source, failure = environment.find_operators(GOOD)
    assert source == 'compiled'
    assert 'mmcv._ext' in failure


def test_main_prints_the_report(monkeypatch, capsys):
    monkeypatch.setattr(environment, 'installed_versions', lambda: GOOD)
    monkeypatch.setattr(environment, 'find_operators', lambda versions: TORCHVISION)
    assert main([]) == 0
    out = capsys.readouterr().out
    rows = dict(line.split(maxsplit=1) for line in out.splitlines()[: len(GOOD)])
    assert rows == GOOD
    assert 'mmcv.ops        torchvision and plain torch (what mmdet' in out
    assert 'device          ' in out
    assert f'norm types      {", ".join(sorted(NORMS))}\n' in out
    assert out.endswith('\nTraining can work here.\n')


def test_main_fails_where_training_cannot_work(monkeypatch, capsys):
    monkeypatch.setattr(environment, 'installed_versions', lambda: GOOD | {'mmcv': '2.2.0'})
    monkeypatch.setattr(environment, 'find_operators', lambda versions: TORCHVISION)
    assert main([]) == 1
    out = capsys.readouterr().out
    assert '\nerror: mmdet 3.3.0 refuses mmcv 2.2.0' in out
    assert 'Training cannot work here' in out


@pytest.mark.slow
def test_the_report_of_this_environment():
    done = subprocess.run([sys.executable, '-m', 'normplug'], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'norm types      ' in done.stdout
    assert 'Training can work here.' in done.stdout


@pytest.mark.parametrize(
    ('backend', 'compiler', 'line'),
    [
        ('auto', '/usr/bin/g++', 'auto: normalizers are compiled on first use, by g++'),
        ('auto', None, 'auto: normalizers run as plain torch, for want of g++'),
        ('compiled', None, 'compiled: the first forward will fail, for want of g++'),
        ('eager', None, 'eager: normalizers run as plain torch'),
    ],
)
def test_what_runs_the_normalizers(backend, compiler, line, monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    monkeypatch.setattr('shutil.which', lambda name: compiler)
    monkeypatch.delenv('CXX', raising=False)
    before = normplug.get_backend()
    normplug.set_backend(backend)
    try:
        assert f'backend         {line}' in environment.report()[0].splitlines()
    finally:
        normplug.set_backend(before)
