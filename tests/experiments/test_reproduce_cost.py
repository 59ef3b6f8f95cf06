"""What a table costs at full scale is counted, and timed if asked for."""

import pytest

from normplug.experiments.reproduce import cost
from normplug.ops.backend import get_backend


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch):
    monkeypatch.setitem(cost._SETS, 'imagenet', (1000, (32, 32)))


def _cells(line):
    return [cell.strip() for cell in line.strip('| ').split('|')]


def test_counted(capsys):
    backend = get_backend()
    assert cost.main_cost(['--tables', 'comparison', '--tflops', '2']) == 0
    header, _, line, *_ = capsys.readouterr().out.splitlines()
    row = dict(zip(_cells(header), _cells(line), strict=True))
    assert row['table'] == 'comparison'
    assert float(row['images seen (million)']) == pytest.approx(0.1)  # 100 epochs
    # ResNet-50 has 4.1 GFLOP of multiply-adds forward at 224 pixels; 2 each, 3 times that a step.
    at_32 = 4.1e9 * (32 / 224) ** 2
    assert float(row['TFLOP an image']) * 1e12 == pytest.approx(at_32 * 2 * 3, rel=0.1)
    assert get_backend() == backend


def test_measured(capsys, monkeypatch):
    monkeypatch.setattr(cost, 'seconds_of', lambda call, device: call() and 1.8)
    assert cost.main_cost(['--tables', 'comparison', '--measure', '1']) == 0
    out = capsys.readouterr().out
    header, _, line, *_ = out.splitlines()
    row = dict(zip(_cells(header), _cells(line), strict=True))
    assert row['s a step'] == '1.8'
    # 1000 images, 100 epochs, 1.8 s for each of the batches.
    hours = 1000 * 100 * 1.8 / int(row['images a step']) / 3600
    assert float(row['hours here']) == round(hours)
    assert '- machine: ' in out


def test_clips_are_counted(capsys, monkeypatch):
    pytest.importorskip('mmaction')
    monkeypatch.setitem(cost._SETS, 'kinetics', (1000, (32, 56, 56)))
    assert cost.main_cost(['--tables', 'table6']) == 0
    header, _, line, *_ = capsys.readouterr().out.splitlines()
    row = dict(zip(_cells(header), _cells(line), strict=True))
    # I3D: 43.5 GFLOP of multiply-adds forward at 32 frames of 256 pixels (mmaction2's zoo).
    at_56 = 43.5e9 * (56 / 256) ** 2
    assert float(row['TFLOP an image']) * 1e12 == pytest.approx(at_56 * 2 * 3, rel=0.1)


@pytest.mark.parametrize('table', ['whitening-segmentation', 'practice-trees'])
def test_a_table_without_rows_at_full_scale_costs_nothing(capsys, table):
    assert cost.main_cost(['--tables', table]) == 0
    assert f'| {table}' not in capsys.readouterr().out


def test_each_table_at_full_scale_has_a_row_to_count():
    pytest.importorskip('mmaction')
    tables = {job.table for job in cost._jobs(list(cost.TABLES))}
    small = {'whitening-segmentation', 'practice-trees', 'practice-cells'}
    assert tables == cost.TABLES.keys() - small
