"""tools/compare_runs.py on what trainings left."""

import csv
import json

import numpy as np
import pytest

from normplug.reports.compare import main_compare_runs
from normplug.reports.figures import plot_losses, plot_metric
from normplug.reports.runs import read_run


def write_run(folder, aps, loss):
    vis = folder / '20260101_000000/vis_data'
    vis.mkdir(parents=True)
    lines = []
    for epoch, ap in enumerate(aps, 1):
        record = {'loss': loss, 'time': 0.5, 'iter': 10 * epoch, 'memory': 70 + epoch}
        lines += [record, {'coco/bbox_mAP': ap, 'data_time': 0.1, 'time': 0.2, 'step': epoch}]
    (vis / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    return folder


@pytest.fixture
def runs(tmp_path):
    return [write_run(tmp_path / 'bn', [0.1, 0.3, 0.2], 2.0), write_run(tmp_path / 'sn', [0.4], 1)]


def test_table_and_curves(runs, tmp_path, capsys):
    out = tmp_path / 'out'
    assert main_compare_runs([str(runs[0]), f'switchable={runs[1]}', '--out', str(out)]) == 0
    names = {'compare.md', 'compare.csv', 'compare_loss.png', 'compare_coco_bbox_mAP.png'}
    assert {path.name for path in out.iterdir()} == names
    bn, sn = csv.DictReader((out / 'compare.csv').open())
    assert (bn['run'], sn['run']) == ('bn', 'switchable')
    assert (bn['coco/bbox_mAP'], bn['highest coco/bbox_mAP'], bn['at step']) == ('0.2', '0.3', '2')
    assert (bn['iterations'], bn['s/iteration'], bn['peak memory (MB)']) == ('30', '0.5', '73')
    assert '| switchable | 10 | 0.4 |' in capsys.readouterr().out


def test_curves_of_one_name_are_seeds(tmp_path):
    runs = [
        read_run(write_run(tmp_path / 'one', [0.1, 0.3, 0.2], 2.0), 'BN'),
        read_run(write_run(tmp_path / 'other', [0.4, 0.6], 1.0), 'SN'),
        read_run(write_run(tmp_path / 'two', [0.5, 0.1], 4.0), 'BN'),
    ]
    (axes,) = plot_metric(runs, 'coco/bbox_mAP').axes
    bn, sn = (line.get_xydata() for line in axes.lines)
    assert bn == pytest.approx(np.array([[1, 0.3], [2, 0.2]]))
    assert sn == pytest.approx(np.array([[1, 0.4], [2, 0.6]]))
    (axes,) = plot_losses(runs).axes
    assert axes.lines[0].get_xydata() == pytest.approx(np.array([[10, 3], [20, 3]]))
    assert [text.get_text() for text in axes.get_legend().texts] == ['BN', 'SN']


def test_names_are_told_apart_unless_they_are_given(tmp_path):
    folders = [str(write_run(tmp_path / name / 'train', [0.1], 1)) for name in 'ab']

    def names(*runs):
        assert main_compare_runs([*runs, '--out', str(tmp_path)]) == 0
        with (tmp_path / 'compare.csv').open() as file:
            return [row['run'] for row in csv.DictReader(file)]

    assert names(*folders) == folders
    assert names(*(f'BN={folder}' for folder in folders)) == ['BN', 'BN']


def test_errors_name_the_option(runs, tmp_path, capsys):
    assert main_compare_runs([str(runs[0]), '--metric', 'mIoU']) == 2
    assert '--metric: no run has mIoU; there are coco/bbox_mAP' in capsys.readouterr().err
    assert main_compare_runs([str(tmp_path / 'none')]) == 2
    assert 'train into it first' in capsys.readouterr().err
