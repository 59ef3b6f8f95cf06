"""The table and the picture of what BatchNoiseHook logged: tools/plot_batch_noise.py."""

import csv
import io
import json

import cv2
import pytest

from normplug.reports.figures import plot_batch_noise
from normplug.reports.plot_batch_noise import main_plot_batch_noise
from normplug.reports.runs import read_run

NOISE = {'mean_noise': 0.2, 'mean_law': 0.125, 'std_noise': 0.05, 'std_law': 0.0625}
LAYERS = {
    'backbone.bn1': {**NOISE, 'zeta': 0.25, 'images': 8.0},
    'head.bn': NOISE,
    'head.bn/call_2': {**NOISE, 'mean_noise': 0.0, 'std_noise': 0.0},
}


def write(work_dir, name, *records, killed=False):
    folder = work_dir / name / 'vis_data'
    folder.mkdir(parents=True)
    lines = [json.dumps(record) for record in records] + ['{"batch_noise/a/ze'] * killed
    (folder / 'scalars.json').write_text('\n'.join(lines) + '\n')


def noise(step, layers=LAYERS):
    scalars = {
        f'batch_noise/{layer}/{name}': value
        for layer, found in layers.items()
        for name, value in found.items()
    }
    return {**scalars, 'step': step}


def loss(iteration):
    return {'loss': 1.0, 'iter': iteration, 'time': 0.1, 'step': iteration}


def run(work_dir):
    """Killed after 30 iterations, and resumed from those after 10."""
    other = {'backbone.bn1': {'mean_noise': 9.0}}
    ratio = {'ratio/sn/mean_in': 0.5, 'step': 10}
    write(work_dir, '1', noise(0), loss(10), ratio, noise(20, other), noise(30, other), killed=True)
    write(work_dir, '2', loss(20), noise(20), noise(40), {'score': 0.5, 'step': 1})


def test_table_and_picture(tmp_path, capsys):
    run(tmp_path)
    assert main_plot_batch_noise([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(tmp_path / name) for name in ('batch_noise.png', 'batch_noise.csv')
    ]
    rows = list(csv.DictReader(io.StringIO((tmp_path / 'batch_noise.csv').read_text())))
    assert [(row['iteration'], row['layer']) for row in rows] == [
        (step, layer) for step in ('0', '20', '40') for layer in LAYERS
    ]
    for row, found in zip(rows, [*LAYERS.values()] * 3, strict=True):
        kept = {n: float(v) for n, v in row.items() if n not in ('iteration', 'layer') and v}
        assert kept == found
        assert set(row) == {'iteration', 'layer', *NOISE, 'zeta', 'images'}
    picture = cv2.imread(str(tmp_path / 'batch_noise.png'))
    assert picture.shape[0] > 500
    assert picture.std() > 10
    # Other readers of the run see evaluations only.
    assert read_run(tmp_path).val == [{'score': 0.5, 'step': 1}]


def test_what_the_picture_shows():
    figure = plot_batch_noise(LAYERS)
    noises, zeta = figure.axes[:2], figure.axes[2]
    for axes, measured, law in zip(noises, (0.2, 0.05), (0.125, 0.0625), strict=True):
        points, line = axes.lines
        assert points.get_ydata()[:2].tolist() == [measured] * 2
        assert str(points.get_ydata()[2]) == 'nan'  # the logarithm of 0
        assert line.get_ydata().tolist() == [law] * 3
        assert axes.get_yscale() == 'log'
    assert zeta.lines[0].get_ydata()[0].item() == 0.25
    assert [text.get_text() for text in zeta.get_xticklabels()] == list(LAYERS)


@pytest.mark.parametrize('layers', [{'bn': {'images': 2.0}}, {'bn': {**NOISE, 'mean_noise': 0.0}}])
def test_a_picture_of_what_is_not_known(layers):
    figure = plot_batch_noise(layers)
    assert figure.axes[2].get_yscale() == 'linear'
    figure.canvas.draw()


def test_files_are_replaced_only_when_asked(tmp_path, capsys):
    run(tmp_path)
    (tmp_path / 'batch_noise.csv').write_text('mine')
    assert main_plot_batch_noise([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert f'{tmp_path / "batch_noise.csv"} exists; name another folder by --out' in error
    assert not (tmp_path / 'batch_noise.png').exists()
    assert main_plot_batch_noise([str(tmp_path), '--out', str(tmp_path / 'out')]) == 0
    assert main_plot_batch_noise([str(tmp_path), '--overwrite']) == 0
    assert (tmp_path / 'batch_noise.csv').read_bytes() == (
        tmp_path / 'out' / 'batch_noise.csv'
    ).read_bytes()


@pytest.mark.parametrize('records', [[], [loss(10)]])
def test_a_run_without_records(tmp_path, records, capsys):
    if records:
        write(tmp_path, '1', *records)
    assert main_plot_batch_noise([str(tmp_path)], 'plot') == 2
    error = capsys.readouterr().err
    assert error.startswith(f'plot: error: {tmp_path} has no */vis_data/scalars.json with records')
    assert "custom_hooks=[dict(type='BatchNoiseHook')]" in error


def test_a_folder_that_does_not_exist(tmp_path, capsys):
    assert main_plot_batch_noise([str(tmp_path / 'gone')]) == 2
    assert 'gone has no' in capsys.readouterr().err
