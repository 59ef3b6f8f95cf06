"""Configs of mmengine's new style: classes as types, ``default_scope = None``, no ``_base_``."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmdet')

RUNTIME = """
from mmengine.hooks import CheckpointHook, LoggerHook
from mmengine.visualization import LocalVisBackend
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.visualization import DetLocalVisualizer
from normplug.hooks import SampleSeedHook
default_scope = None
default_hooks = dict(
    checkpoint=dict(type=CheckpointHook, interval=1),
    logger=dict(type=LoggerHook, interval=1),
    visualization=dict(type=DetVisualizationHook),
)
custom_hooks = [dict(type=SampleSeedHook)]
visualizer = dict(type=DetLocalVisualizer, vis_backends=[dict(type=LocalVisBackend)])
"""
CONFIG = """
from mmengine.config import read_base
with read_base():
    from .runtime import *
from mmcv.ops import RoIAlign, nms
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import DefaultSampler
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from torch.optim import SGD
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, Resize
from mmdet.evaluation import CocoMetric
from mmdet.models import (
    FPN, DetDataPreprocessor, FasterRCNN, ResNet, RPNHead, Shared2FCBBoxHead, SingleRoIExtractor,
    StandardRoIHead,
)
from mmdet.models.task_modules import (
    AnchorGenerator, DeltaXYWHBBoxCoder, MaxIoUAssigner, RandomSampler,
)
from normplug import SN
from normplug.optim import NormOptimWrapperConstructor

keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
dataset = dict(
    type=CocoDataset,
    data_root='data',
    ann_file='a.json',
    data_prefix=dict(img='img'),
    metainfo=dict(classes=('nut',)),
    pipeline=[
        dict(type=LoadImageFromFile),
        dict(type=LoadAnnotations, with_bbox=True),
        dict(type=Resize, scale=(64, 48)),
        dict(type=PackDetInputs, meta_keys=keys),
    ],
)
train_dataloader = dict(
    batch_size=2, dataset=dataset, sampler=dict(type=DefaultSampler, shuffle=True)
)
val_dataloader = dict(
    dataset={**dataset, 'test_mode': True}, sampler=dict(type=DefaultSampler, shuffle=False)
)
test_dataloader = val_dataloader
val_evaluator = dict(type=CocoMetric, ann_file='data/a.json')
test_evaluator = val_evaluator
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=1)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=SGD, lr=0.001, weight_decay=0.1),
    constructor=NormOptimWrapperConstructor,
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
norm_cfg = dict(type=SN)
anchors = dict(type=AnchorGenerator, scales=[4], ratios=[1.0], strides=[4, 8, 16, 32])
assigner = dict(type=MaxIoUAssigner, pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.0)
# An RPN that samples the true boxes too has indices beyond its anchors.
sampler = dict(type=RandomSampler, num=16, pos_fraction=0.5, add_gt_as_proposals=False)
training = dict(assigner=assigner, sampler=sampler, pos_weight=-1, allowed_border=-1)
proposals = dict(nms_pre=50, max_per_img=20, nms=dict(type=nms, iou_threshold=0.7), min_bbox_size=0)
model = dict(
    type=FasterRCNN,
    data_preprocessor=dict(
        type=DetDataPreprocessor, mean=[0] * 3, std=[255] * 3, pad_size_divisor=32
    ),
    backbone=dict(type=ResNet, depth=18, base_channels=8, stem_channels=8, norm_cfg=norm_cfg),
    neck=dict(type=FPN, in_channels=[8, 16, 32, 64], out_channels=8, num_outs=4, norm_cfg=norm_cfg),
    rpn_head=dict(type=RPNHead, in_channels=8, feat_channels=8, anchor_generator=anchors),
    roi_head=dict(
        type=StandardRoIHead,
        bbox_roi_extractor=dict(
            type=SingleRoIExtractor,
            roi_layer=dict(type=RoIAlign, output_size=3, sampling_ratio=0),
            out_channels=8,
            featmap_strides=[4, 8, 16, 32],
        ),
        bbox_head=dict(
            type=Shared2FCBBoxHead,
            in_channels=8,
            fc_out_channels=8,
            roi_feat_size=3,
            num_classes=1,
            bbox_coder=dict(type=DeltaXYWHBBoxCoder),
        ),
    ),
    train_cfg=dict(rpn=training, rpn_proposal=proposals, rcnn=training),
    test_cfg=dict(
        rpn=proposals,
        rcnn=dict(score_thr=0.0, nms=dict(type=nms, iou_threshold=0.5), max_per_img=5),
    ),
)
"""
PLACED = CONFIG.replace(
    'import SN\n', 'import KN, SN\nfrom normplug.models import norm_placement\n'
)
PLACED = PLACED.replace(
    'type=FasterRCNN',
    'type=norm_placement, model_type=FasterRCNN, '
    "norms=[dict(where='backbone.*', norm_cfg=dict(type=KN))]",
)
# In a process of its own: the runner of another test leaves its scope, as for mmengine itself.
COMMANDS = """
import sys
from normplug.__main__ import main
for line in sys.stdin.read().splitlines():
    code = main(line.split())
    print('CODE', code, line, flush=True)
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('classes')
    (folder / 'data/img').mkdir(parents=True)
    coco = dict(images=[], annotations=[], categories=[dict(id=1, name='nut')])
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 255, (48, 64, 3)).astype('uint8')
        Image.fromarray(pixels).save(folder / f'data/img/{i}.png')
        coco['images'].append(dict(id=i, file_name=f'{i}.png', width=64, height=48))
        box = dict(bbox=[8, 8, 24, 20], area=480, iscrowd=0)
        coco['annotations'].append(dict(id=i + 1, image_id=i, category_id=1, **box))
    (folder / 'data/a.json').write_text(json.dumps(coco))
    texts = {'__init__': '', 'runtime': RUNTIME, 'config': CONFIG, 'placed': PLACED}
    for name, text in texts.items():
        (folder / f'{name}.py').write_text(text)
    return folder


def run(folder, *lines):
    """Run these commands of normplug one after another; return their exit codes and stderr."""
    done = subprocess.run(
        [sys.executable, '-c', COMMANDS],
        input='\n'.join(lines),
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, 'NORMPLUG_BACKEND': 'eager', 'OMP_NUM_THREADS': '1'},
    )
    said = [line.split()[1] for line in done.stdout.splitlines() if line.startswith('CODE')]
    return [int(code) for code in said], done.stderr


@pytest.mark.slow
def test_all_tools(folder):
    lines = [
        'check-data config.py',
        'train config.py --work-dir w',
        # The config as mmengine has dumped it, with the paths of classes as types.
        'train w/config.py --work-dir w --resume --cfg-options train_cfg.max_epochs=2',
        'test config.py w/epoch_2.pth --work-dir t --out o.pkl --show-dir s',
        'batch-average config.py w/epoch_1.pth a.pth --batches 2',
        'convert-checkpoint w/epoch_1.pth c.pth --config config.py',
        'deploy config.py w/epoch_2.pth d',
        'test d/config.py d/model.pth --work-dir u',
        'train config.py --work-dir v --cfg-options default_scope=mmdet',
        'deploy config.py v/epoch_1.pth e --cfg-options default_scope=mmdet',
        'train placed.py --work-dir p',
        'deploy p/placed.py p/epoch_1.pth f',
        'test f/config.py f/model.pth --work-dir q',
    ]
    codes, error = run(folder, *lines)
    assert codes == [0] * len(lines), error[-2000:]
    assert (folder / 'o.pkl').exists()
    assert len(list((folder / 's').rglob('*.png'))) == 4
    log = next((folder / 'w').glob('*/*.log')).read_text()
    assert 'tensors with lr 0.001, weight decay 0' in log  # the class of the constructor is ours


@pytest.mark.slow
def test_errors_name_the_key(folder):
    wrong = CONFIG.replace('FPN, DetData', 'FPM as FPN, DetData')
    (folder / 'imports.py').write_text(wrong)
    wrong = CONFIG.replace('import CocoMetric', 'import CoccoMetric as CocoMetric')
    (folder / 'metric.py').write_text(wrong)
    named = CONFIG.replace('dict(type=PackDetInputs', "dict(type='PackDetInputs'")
    (folder / 'names.py').write_text(named)
    codes, error = run(
        folder,
        'train config.py --cfg-options model.neck.norm_cfg.epss=1',
        'train imports.py',
        'train metric.py',
        'train names.py',
    )
    assert codes == [2] * 4, error[-2000:]
    assert 'Traceback' not in error
    wanted = [
        'error: model.neck.norm_cfg: SN.__init__() got an unexpected keyword',
        'model.neck.type: Failed to import FPM from mmdet.models in imports.py, line',
        'val_evaluator.type: Failed to import CoccoMetric from mmdet.evaluation in metric.py, line',
        "train_dataloader.dataset.pipeline.3.type: there is no type 'PackDetInputs' in the scope "
        "None: write 'mmdet.PackDetInputs', or set default_scope = 'mmdet'",
    ]
    for message in wanted:
        assert message in error


# A class is imported when its type is read, and brings all that this package registers.
BY_ITSELF = """
import sys
from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS
cfg = Config.fromfile('small.py')
assert 'normplug' not in sys.modules
print(type(MODELS.build(cfg.norm)).__name__, 'SampleSeedHook' in HOOKS)
"""


@pytest.mark.slow
def test_a_class_needs_no_custom_imports(tmp_path):
    text = 'from normplug import SN\nnorm = dict(type=SN, num_features=4)\n'
    (tmp_path / 'small.py').write_text(text)
    done = subprocess.run(
        [sys.executable, '-c', BY_ITSELF], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.split() == ['SN', 'True'], done.stderr
