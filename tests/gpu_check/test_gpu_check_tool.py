"""tools/gpu_check.py from the command line to its files, on the CPU."""

import json

import pytest
import torch

from normplug.gpu_check import cli
from normplug.gpu_check.checks import Check
from normplug.gpu_check.cli import GROUPS, main_gpu_check
from normplug.gpu_check.comparison import LOCAL
from normplug.norms import BaseNorm
from normplug.norms.whitening import WhiteningNorm
from normplug.ops import blocked, get_backend, passes, whitening_passes
from normplug.register import NORMS

CPU = ['--device', 'cpu', '--backend', 'eager', '--quick']


def run(folder, *argv):
    """The exit code, and what the JSON has; with time enough for a busy machine."""
    code = main_gpu_check([*CPU, '--minutes', '60', '--out', str(folder), *argv])
    return code, json.loads((folder / 'gpu_check.json').read_text())


def failed(data):
    return {row['name']: row['seen'] for row in data['results'] if row['state'] == 'failed'}


def test_right_layers_pass(tmp_path, capsys):
    groups = ['environment', 'parity', 'sizes', 'memory', 'behaviour', 'waits']
    backend = get_backend()
    code, data = run(tmp_path / 'out', '--only', *groups)
    assert failed(data) == {}
    assert code == 0
    assert get_backend() == backend
    names = [row['name'] for row in data['results'] if row['group'] == 'parity']
    dtypes = ('float32', 'bfloat16', 'float16')
    assert names == [f'{norm}, eager, {dtype}' for dtype in dtypes for norm in NORMS]
    assert list(dict.fromkeys(row['group'] for row in data['results'])) == groups
    assert {row['state'] for row in data['results'] if row['group'] == 'waits'} == {'skipped'}
    assert data['source']['command'].startswith('tools/gpu_check.py --device cpu')
    assert data['source']['torch'] == torch.__version__
    text = (tmp_path / 'out/gpu_check.md').read_text()
    assert 'checks passed.' in text
    assert 'This was the CPU: no GPU was checked.' in text
    assert f'- torch: `{torch.__version__}`' in text
    out = capsys.readouterr().out
    assert f'parity: {len(names)} ok, 0 failed, 0 skipped' in out
    assert out.endswith(f'{tmp_path}/out/gpu_check.md\n{tmp_path}/out/gpu_check.json\n')


@pytest.mark.parametrize('factor', [1.01, float('nan')])
def test_a_wrong_pass_is_named(factor, tmp_path, monkeypatch, capsys):
    for module in (passes, blocked):  # of small and of large maps on a CPU

        def wrong(*args, honest=module.backward_input):
            return honest(*args).mul_(factor)

        monkeypatch.setattr(module, 'backward_input', wrong)

    def wrong_of_blocks(*args, honest=whitening_passes.backward_input):
        dx_n = honest(*args)
        return (args[-1] if dx_n is None else dx_n).mul_(factor)

    monkeypatch.setattr(whitening_passes, 'backward_input', wrong_of_blocks)
    code, data = run(tmp_path, '--only', 'parity', 'memory')
    assert code == 1
    told = failed(data)
    for dtype in ('float32', 'float16'):
        for name in NORMS:
            seen = told[f'{name}, eager, {dtype}']
            assert 'contiguous, training: the gradient of x is off by' in seen
            assert 'channels_last, training: the gradient of x is off by' in seen
            assert 'evaluation' not in seen
            assert 'the output' not in seen
    assert 'SN, eager, a crop' in told
    out = capsys.readouterr().out
    assert 'FAILED: parity: SN, eager, float32: contiguous, training: the gradient of x' in out
    assert 'checks FAILED.' in (tmp_path / 'gpu_check.md').read_text()


def test_a_wrong_running_statistic_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(BaseNorm, 'tracks_unbiased', lambda *_: False)
    code, data = run(tmp_path, '--only', 'parity')
    assert code == 1
    seen = failed(data)['GhostBN, eager, bfloat16']
    assert 'contiguous, training: running_var is off by' in seen
    assert 'running_mean' not in seen
    assert 'gradient' not in seen


def test_a_wrong_running_matrix_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(WhiteningNorm, 'tracks_unbiased', lambda *_: True)
    code, data = run(tmp_path, '--only', 'parity')
    assert code == 1
    told = failed(data)
    assert {name.split(',')[0] for name in told} == {'SW', 'SyncSW', 'IterNorm', 'SyncIterNorm'}
    assert 'contiguous, training: running_cov is off by' in told['SW, eager, float32']
    assert 'contiguous, training: running_wm is off by' in told['IterNorm, eager, float32']


def test_a_check_that_raises_stops_no_other(tmp_path, monkeypatch, capsys):
    def broken():
        raise RuntimeError('no | such\n thing')

    groups = {name: cli.Group(lambda _: [Check('one', broken)], 9) for name in 'ab'}
    groups['c'] = cli.Group(lambda _: [Check('one', lambda: 'seen')], 9)
    monkeypatch.setattr(cli, 'GROUPS', groups)
    code, data = run(tmp_path)
    assert code == 1
    assert [row['state'] for row in data['results']] == ['failed', 'failed', 'ok']
    assert (
        '| a | one | RuntimeError: no \\| such thing |' in (tmp_path / 'gpu_check.md').read_text()
    )
    assert '2 of 3 checks FAILED.' in capsys.readouterr().out


def test_what_was_seen_outlives_the_process(tmp_path, monkeypatch):
    def dies():
        raise KeyboardInterrupt

    groups = {'a': cli.Group(lambda _: [Check('one', lambda: 'seen')], 9)}
    groups['b'] = cli.Group(lambda _: [Check('one', dies)], 9)
    monkeypatch.setattr(cli, 'GROUPS', groups)
    with pytest.raises(KeyboardInterrupt):
        main_gpu_check([*CPU, '--out', str(tmp_path)])
    (row,) = json.loads((tmp_path / 'gpu_check.json').read_text())['results']
    assert (row['group'], row['state']) == ('a', 'ok')


def test_nothing_checked_is_no_success(tmp_path):
    code, data = run(tmp_path, '--only', 'launches')
    assert code == 1
    assert data['verdict'].startswith(f'Nothing was checked. {len(LOCAL) + 1} were skipped.')


def test_the_minutes_are_shared(tmp_path):
    _, data = run(tmp_path, '--only', 'parity', '--minutes', '1e-9')
    assert {row['state'] for row in data['results'][1:]} == {'skipped'}
    assert data['results'][-1]['seen'].endswith('raise --minutes')
    assert sum(group.limit for group in GROUPS.values()) <= 190  # seconds of three minutes, about


def test_layer_table(tmp_path, monkeypatch):
    monkeypatch.setattr('normplug.bench.timing._COPY_BYTES', 2**22)
    monkeypatch.setattr('normplug.gpu_check.speed._SECONDS', 0)
    shapes = {'stage 4 out': (2, 32, 5, 7), 'tiny 4x4': (2, 32, 4, 4)}
    monkeypatch.setattr('normplug.gpu_check.speed.R50_FPN', shapes)
    code, data = run(tmp_path, '--only', 'layers')
    assert code == 0
    forms = {(row['dtype'], row['layout']) for row in data['tables']['layers']}
    assert forms == {('float32', 'contiguous'), ('float16', 'channels_last')}
    assert {'SN', 'IBN', 'KN', 'BN'} <= {row['norm'] for row in data['tables']['layers']}
    text = (tmp_path / 'gpu_check.md').read_text()
    assert '## Measured: layers\n\n### train, float32, contiguous' in text
    assert text.count('- torch: ') == 1


def test_without_a_gpu(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    for build, reason in (('13.0', 'finds no GPU'), (None, 'is a build for CPUs only')):
        monkeypatch.setattr(torch.version, 'cuda', build)
        assert main_gpu_check([]) == 2
        assert capsys.readouterr().err == (
            f'tools/gpu_check.py: error: torch {torch.__version__} {reason}. --device cpu makes '
            'the checks that need none\n'
        )
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['--minutes', '0'], '--minutes must be a positive number, got 0'),
        (['--minutes', 'nan'], '--minutes must be a positive number, got nan'),
        (['--out', __file__], f'--out: {__file__} is a file; name a folder'),
    ],
)
def test_wrong_options_are_named(argv, message, capsys):
    assert main_gpu_check([*CPU, *argv]) == 2
    assert f'tools/gpu_check.py: error: {message}' in capsys.readouterr().err


@pytest.mark.slow
def test_two_ranks(tmp_path):
    code, data = run(tmp_path, '--only', 'ranks')
    assert code == 0
    assert data['results'][0]['seen'].startswith('by gloo; largest error')
