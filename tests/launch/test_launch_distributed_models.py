"""The digits models on several gloo processes: training, and evaluation against one process."""

import json
import pickle

import pytest
import torch

from normplug.data.build import DigitsSettings, build_digits
from normplug.data.scene import SceneSettings
from tests.launch.processes import ROOT, assert_ranks_agree, launched

# 5 images to evaluate: neither 2 nor 3 processes have equal shares.
SETTINGS = DigitsSettings(train=12, val=5, scene=SceneSettings(size=64))

SHARED = """
custom_imports = dict(imports=['normplug', 'distributed_hooks'])
custom_hooks = [
    dict(type='SampleSeedHook'),
    dict(type='NonFiniteLossHook'),
    dict(type='SaveRankHook'),
]
default_hooks = dict(logger=dict(interval=1))
work_dir = '{folder}/work'
"""

DETECTOR = """
_base_ = '{root}/configs/faster_rcnn/faster-rcnn_r18-w32_fpn_sn_digits.py'
data = dict(data_root='{folder}/coco/')
train_dataloader = dict(dataset=data)
val_dataloader = test_dataloader = dict(dataset=data, batch_size=1)
annotations = '{folder}/coco/annotations/instances_val.json'
val_evaluator = test_evaluator = dict(ann_file=annotations)
model = dict(
    backbone=dict(stem_channels=8, base_channels=8, norm_cfg=dict(type='SyncSN'), init_cfg=None),
    neck=dict(in_channels=[8, 16, 32, 64]),
    test_cfg=dict(rcnn=dict(score_thr=0.0, max_per_img=20)),
)
"""

SEGMENTOR = """
_base_ = '{root}/configs/fcn/fcn_r18-d8-w32_syncbn_digits-ade.py'
data = dict(data_root='{folder}/ade/')
train_dataloader = val_dataloader = test_dataloader = dict(dataset=data)
model = dict(
    backbone=dict(stem_channels=8, base_channels=8, init_cfg=None),
    decode_head=dict(in_channels=64),
    auxiliary_head=dict(in_channels=32),
)
train_cfg = dict(max_iters=3, val_interval=3)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=3))
"""


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Train on two processes; return the folder of the data, the config and the work dir."""

    def train(text, form):
        pytest.importorskip({'coco': 'mmdet'}.get(form, 'mmseg'))
        folder = tmp_path_factory.mktemp(form)
        build_digits(folder, [form], SETTINGS, log=lambda line: None)
        config = folder / 'config.py'
        config.write_text(text.format(root=ROOT, folder=folder))
        launched('dist_train.sh', config, 2)
        return folder

    return train


@pytest.fixture(scope='module')
def detector(trained):
    return trained(DETECTOR + SHARED, 'coco')


def checkpoints(folder):
    return sorted(path.name for path in (folder / 'work').glob('*.pth'))


@pytest.mark.slow
def test_detector(detector):
    """Synchronized norms in the backbone, local ones in the neck."""
    assert_ranks_agree(detector / 'work', 2)
    assert checkpoints(detector) == ['epoch_1.pth']
    rank = torch.load(detector / 'work/rank0.pt')
    assert len(rank['losses']) == SETTINGS.train // (2 * 2)
    saved = torch.load(detector / 'work/epoch_1.pth', weights_only=False)['state_dict']
    for name, value in rank['state'].items():
        assert torch.equal(saved[name], value), name


def evaluated(folder, processes):
    """Metrics, and the predictions by image."""
    out = folder / f'by_{processes}'
    command = [folder / 'config.py', folder / 'work/epoch_1.pth']
    options = ['--out', f'{out}.pkl', '--work-dir', out]
    if processes > 1:
        launched('dist_test.sh', *command, processes, *options)
    else:
        launched('test.py', *command, *options)
    (path,) = out.glob('*/*.json')
    metrics = json.loads(path.read_text())
    predictions = pickle.loads((folder / f'by_{processes}.pkl').read_bytes())
    images = {p['img_id']: p['pred_instances'] for p in predictions}
    assert len(images) == len(predictions) == SETTINGS.val
    return {key: value for key, value in metrics.items() if 'bbox' in key}, images


@pytest.mark.slow
def test_evaluation_on_several_processes_equals_one(detector):
    metrics, images = evaluated(detector, 1)
    assert 'coco/bbox_mAP' in metrics
    same_metrics, same_images = evaluated(detector, 3)
    assert same_metrics == metrics
    for name, instances in images.items():
        for key, value in instances.items():
            assert torch.equal(same_images[name][key], value), (name, key)
    # Two processes have evaluated it at the end of the training.
    (path,) = detector.glob('work/*/vis_data/scalars.json')
    (line,) = [line for line in path.read_text().splitlines() if 'coco/bbox_mAP' in line]
    found = json.loads(line)
    assert {key: found[key] for key in metrics} == metrics


@pytest.mark.slow
def test_segmentor_with_sync_bn(trained):
    folder = trained(SEGMENTOR + SHARED, 'ade')
    assert_ranks_agree(folder / 'work', 2)
    assert checkpoints(folder) == ['iter_3.pth']
    (log,) = (folder / 'work').glob('*/*.log')
    assert 'SyncBN layers run as PortableSyncBN' in log.read_text()
    assert 'mIoU' in log.read_text()
    state = torch.load(folder / 'work/rank0.pt')['state']
    assert state['backbone.bn1.num_batches_tracked'] == 3
