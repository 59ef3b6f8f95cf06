"""Runs read back from what mmengine writes, and the tables and figures made of them."""

import json

import cv2
import numpy as np
import pytest
import torch

from normplug import SN
from normplug.reports import demo
from normplug.reports.demo import COCO_COLUMNS, coco_row
from normplug.reports.figures import plot_detections, plot_losses
from normplug.reports.output import png
from normplug.reports.runs import Run, read_run
from normplug.reports.tables import markdown

TRAIN = [
    {'loss': 2.0, 'time': 0.5, 'memory': 900, 'iter': 50, 'step': 50},
    {'loss': 1.0, 'time': 0.25, 'memory': 950, 'iter': 100, 'step': 100},
]
VAL = {'coco/bbox_mAP': 0.2514, 'coco/bbox_mAP_50': 0.5, 'coco/bbox_mAP_75': 0.1, 'step': 1}


def write_records(work_dir, timestamp, records):
    folder = work_dir / timestamp / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, records)))


@pytest.fixture
def run(tmp_path):
    write_records(tmp_path, '20260101_000000', [{**TRAIN[0], 'loss': 9.0}])
    ratios = {'ratio/bn1/mean_in': 0.5, 'step': 100}
    write_records(tmp_path, '20260102_000000', [*TRAIN, VAL, ratios])
    write_records(tmp_path, '20260103_000000', [VAL])  # a later test without training
    (tmp_path / 'last_checkpoint').write_text('/moved/since/epoch_1.pth')
    return read_run(tmp_path, 'SN')


def is_picture(figure):
    image = cv2.imdecode(np.frombuffer(png(figure), np.uint8), cv2.IMREAD_COLOR)
    return image is not None and image.std() > 1


def test_latest_training_is_read(run, tmp_path):
    assert run.train == TRAIN
    assert run.val == [VAL]
    assert run.checkpoint == tmp_path / 'epoch_1.pth'
    assert run.train_seconds == 50 * 0.5 + 50 * 0.25
    assert run.peak_memory == 950


def test_what_a_resumed_training_did_again_is_read_once(tmp_path):
    first = [{'loss': float(i), 'time': 0.5, 'iter': i} for i in (10, 20, 30)]
    again = [{'loss': 9.0, 'time': 0.25, 'iter': i} for i in (20, 40)]
    val = [{'score': 0.1, 'step': 15}, {'score': 0.2, 'step': 30}, {'score': 0.3, 'step': 40}]
    write_records(tmp_path, '20260101_000000', [first[0], val[0], *first[1:], val[1]])
    with open(tmp_path / '20260101_000000/vis_data/scalars.json', 'a') as file:
        file.write('\n{"loss": 1.0, "it')  # killed as it wrote
    write_records(tmp_path, '20260102_000000', [*again, val[2]])
    run = read_run(tmp_path)
    assert run.train == [first[0], *again]
    assert run.val == [val[0], val[2]]
    assert run.train_seconds == 10 * 0.5 + 10 * 0.25 + 20 * 0.25


def test_no_training_is_an_error_that_names_the_folder(tmp_path):
    write_records(tmp_path, '20260103_000000', [VAL])
    with pytest.raises(FileNotFoundError, match=f'{tmp_path}: no .* train into it first'):
        read_run(tmp_path)


def test_table_of_a_run_and_of_a_missing_cell(run):
    row = coco_row(run)
    assert row['AP'] == 25.1
    assert row['AP50'] == 50
    lines = markdown(COCO_COLUMNS, [row, {'norm': 'GN | 8'}]).splitlines()
    assert lines[0] == '| norm | AP | AP50 | AP75 | training time (s) | peak memory (MB) |'
    assert lines[2] == '| SN | 25.1 | 50.0 | 10.0 | 38 | 950 |'
    assert lines[3] == r'| GN \| 8 | - | - | - | - | - |'


def test_loss_curves(run, tmp_path):
    assert is_picture(plot_losses([run, Run('BN', tmp_path, TRAIN)]))


@pytest.mark.parametrize('count', [1, 3])
def test_detections(count):
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    rows = [(image, [((2, 2, 20, 20), 'one')], [])] * count
    assert is_picture(plot_detections(rows, ('truth', 'SN')))


def test_report_of_the_demo(run, tmp_path, monkeypatch):
    out = tmp_path / 'out'
    image = np.zeros((32, 32, 3), np.uint8)
    monkeypatch.setattr(demo, 'OUT', out)
    monkeypatch.setattr(demo, '_detections', lambda run: [(image, [], [])])
    torch.save(
        {'state_dict': {'bn1.' + k: v for k, v in SN(4).state_dict().items()}}, run.checkpoint
    )
    low, high = ({**VAL, 'coco/bbox_mAP': ap} for ap in (0.2, 0.24))
    runs = [Run('BN', tmp_path, TRAIN, [low]), run, Run('BN', tmp_path, TRAIN, [high]), run]
    text = demo._report(runs)
    assert '| BN | 22.0 ± 2.8 | 50.0 ± 0.0 | ' in text
    assert 'SN is 3.1 AP above BN. Every picture has its own light' in text
    text = demo._report([Run('BN', tmp_path, TRAIN, [VAL]), run])
    assert '| SN | 25.1 | 50.0 | 10.0 | 38 | 950 |' in text
    assert (out / 'results.md').read_text().startswith(f'{text}\n- command: `make demo`\n')
    found = json.loads((out / 'results.json').read_text())
    assert [row['norm'] for row in found['rows']] == ['BN', 'SN']
    assert found['torch'] == torch.__version__
    for name in ('losses.png', 'sn_ratios.png', 'detections.png'):
        assert (out / name).read_bytes().startswith(b'\x89PNG')


def test_another_seed_of_the_demo_is_trained_elsewhere_and_from_its_own_start(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    start = tmp_path / 'work_dirs/resnet18-w32_sn_digits_seed2'
    start.mkdir(parents=True)
    (start / 'last_checkpoint').write_text('/moved/since/epoch_3.pth')
    assert demo._arguments(demo.DETECTOR, 'sn', 0) == []
    assert demo._arguments(demo.DETECTOR, 'sn', 2) == [
        *('--work-dir', 'work_dirs/faster-rcnn_r18-w32_fpn_sn_digits_seed2'),
        *('--cfg-options', 'randomness.seed=2'),
        f'model.backbone.init_cfg.checkpoint={start.relative_to(tmp_path)}/epoch_3.pth',
    ]
