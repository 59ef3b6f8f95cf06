"""tools/benchmark.py from the command line to its files."""

import csv

import cv2
import pytest

from normplug.bench import cli, layers
from normplug.bench.cli import main_benchmark
from normplug.ops import passes
from normplug.ops.backend import get_backend

TINY = ['--shapes', '2,32,3,4', '2,3,5,1', '--backend', 'eager', '--seconds', '0']
TINY += ['--device', 'cpu']


@pytest.fixture(autouse=True)
def small_copies(monkeypatch):
    """The bandwidth is measured on 4 MiB."""
    monkeypatch.setattr('normplug.bench.timing._COPY_BYTES', 2**22)


def read(path):
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def test_layers(tmp_path, capsys):
    backend = get_backend()
    argv = [*TINY, '--norms', 'SN', 'naive', '--threads', '1', '--out', str(tmp_path / 'out')]
    assert main_benchmark(argv) == 0
    assert get_backend() == backend
    rows = read(tmp_path / 'out/layers.csv')
    found = [(row['shape'], row['mode'], row['norm'], row['ratio_to']) for row in rows]
    want = [('2x32x3x4', 'train', norm, 'BN') for norm in ('SN', 'naive', 'BN')]
    want += [('2x3x5x1', 'train', norm, 'BN') for norm in ('SN', 'naive', 'BN')]
    want += [('2x32x3x4', 'eval', norm, 'GN') for norm in ('SN', 'naive', 'BN', 'GN')]
    want += [('2x3x5x1', 'eval', norm, 'BN') for norm in ('SN', 'naive', 'BN')]
    assert found == want
    for row in rows:
        assert (
            float(row['total_ms_p20']) <= float(row['total_ms_p50']) <= float(row['total_ms_p80'])
        )
        assert (row['backward_ms_p50'] == '') == (row['mode'] == 'eval')
        assert row['backend'] == ('eager' if row['norm'] == 'SN' else 'native')
        assert (row['compilations'], row['threads'], row['peak_MB']) == ('0', '1', '')
        assert row['command'].startswith('tools/benchmark.py --shapes 2,32,3,4 2,3,5,1')
        assert row['torch']
        assert row['machine']
        assert row['date']
        if row['norm'] == row['ratio_to']:
            assert (float(row['ratio']), float(row['over_us'])) == (1, 0)
    table = (tmp_path / 'out/layers.md').read_text()
    assert table.startswith('### train, float32, contiguous\n\n| shape | norm | backend |')
    assert table in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / 'out/layers.png')).std() > 1


def test_gb_per_second_counts_the_transfers_that_must_be(tmp_path):
    argv = ['--shapes', '2,32,3,4', *TINY[3:], '--norms', 'SN', '--dtype', 'bfloat16']
    assert main_benchmark([*argv, '--out', str(tmp_path)]) == 0
    transfers = {('SN', 'train'): 8, ('BN', 'train'): 8}
    transfers |= {('SN', 'eval'): 3, ('GN', 'eval'): 3, ('BN', 'eval'): 2}
    for row in read(tmp_path / 'layers.csv'):
        moved = transfers[row['norm'], row['mode']] * 2 * 2 * 32 * 3 * 4
        speed = moved / (float(row['total_ms_p50']) * 1e-3) / 1e9
        assert float(row['GB/s']) == pytest.approx(speed, rel=1e-4)
        share = float(row['GB/s']) / float(row['copy_GB/s'])
        assert float(row['share_of_copy']) == pytest.approx(share, rel=1e-4)


def test_the_ratio_is_that_of_each_round():
    base = [layers.Times((1.0, 1.0)), layers.Times((10.0, 10.0)), layers.Times((2.0, 2.0))]
    own = [layers.Times((2.0, 1.0)), layers.Times((10.0, 20.0)), layers.Times((4.0, 2.0))]
    row = layers._times(own, base)
    assert row['ratio'] == 1.5  # the machine was slow in the second round for both
    assert row['over_us'] == 2e6
    assert (row['forward_ms_p50'], row['total_ms_p50']) == (4000, 6000)


def test_a_broken_layer_is_not_reported(tmp_path, capsys, monkeypatch):
    honest = passes.backward_input
    monkeypatch.setattr(passes, 'backward_input', lambda *a: honest(*a).mul_(1.01))
    (tmp_path / 'layers.csv').write_text('of an earlier run')
    assert main_benchmark([*TINY, '--out', str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert 'tools/benchmark.py: SN (eager) on 2x32x3x4 float32 contiguous in training' in (
        captured.err
    )
    assert captured.err.endswith('nothing is reported\n')
    assert captured.out == ''
    assert [path.name for path in tmp_path.iterdir()] == ['layers.csv']
    assert (tmp_path / 'layers.csv').read_text() == 'of an earlier run'


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['--shapes', '2,3,4'], '--shapes 2,3,4: a shape is four positive integers N,C,H,W'),
        (['--threads', '0'], '--threads must be at least 1, got 0'),
        (['--random-sizes', '0'], '--random-sizes must be at least 1, got 0'),
        (['--random-sizes', '2', '--norms', 'naive'], '--norms: none of them is ever compiled'),
        (['--seconds', '-1'], '--seconds must not be negative, got -1.0'),
        (['--seconds', 'nan'], '--seconds must not be negative, got nan'),
        (['--image-size', '800', '5'], '--image-size: at least 32 pixels a side'),
        (['--model', 'fcn', '--dtype', 'float16', '--device', 'cpu'], '--dtype float16: with --mo'),
        (['--out', __file__], f'--out: {__file__} is a file; name a folder'),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else '',
)
def test_wrong_options_are_named(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main_benchmark(argv) == 2
    assert f'tools/benchmark.py: error: {message}' in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['--norms', 'XN'], "argument --norms: invalid choice: 'XN'"),
        (['--dtype', 'float64'], "argument --dtype: invalid choice: 'float64'"),
        (['--backend', 'fast'], "argument --backend: invalid choice: 'fast'"),
        (['--quick', '--model', 'fcn'], 'not allowed with argument --quick'),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else '',
)
def test_wrong_choices(argv, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main_benchmark(argv)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_an_unwritable_folder(tmp_path, capsys):
    (tmp_path / 'layers.md').mkdir()
    assert main_benchmark([*TINY, '--norms', 'SN', '--out', str(tmp_path)]) == 2
    assert f'error: --out: {tmp_path / "layers.md"} cannot be written' in capsys.readouterr().err


def test_random_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr('normplug.bench.random_sizes._SIDES', (20, 80))
    argv = ['--random-sizes', '3', '--norms', 'SN', 'naive', '--backend', 'eager']
    assert main_benchmark([*argv, '--device', 'cpu', '--out', str(tmp_path)]) == 0
    (row,) = read(tmp_path / 'random_sizes.csv')
    assert (row['norm'], row['sizes'], row['compilations']) == ('SN', '3', '0')
    assert (tmp_path / 'random_sizes.md').is_file()


@pytest.mark.slow
def test_a_network(tmp_path):
    pytest.importorskip('mmseg')
    argv = ['--model', 'fcn', '--norms', 'SN', 'naive', '--backend', 'eager', '--seconds', '0']
    argv += ['--image-size', '32', '64', '--device', 'cpu', '--out', str(tmp_path)]
    assert main_benchmark(argv) == 0
    rows = read(tmp_path / 'fcn.csv')
    assert [row['norm'] for row in rows] == ['SN', 'naive', 'BN']
    for row in rows:
        assert float(row['images/s']) == pytest.approx(2 / float(row['step_s_p50']), rel=1e-4)
    kept = {row['norm']: float(row['kept_MB']) for row in rows}
    assert kept['naive'] > 1.1 * kept['BN']
    assert cv2.imread(str(tmp_path / 'fcn.png')).std() > 1
    assert cli.NETWORKS.keys() == {'mask-rcnn', 'faster-rcnn', 'fcn'}
