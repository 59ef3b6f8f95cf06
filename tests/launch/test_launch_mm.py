"""The tools on a real, small model of each package: the same commands for all three."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

RUNTIME = """
custom_imports = dict(imports=['normplug'])
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2)
val_cfg = test_cfg = dict()
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.001))
log_processor = dict(by_epoch=False)
checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=2)
norm_cfg = dict(type='SN')
"""

CLASSIFICATION = """
default_scope = 'mmpretrain'
load, pack = dict(type='LoadImageFromFile'), dict(type='PackInputs')
train_dataloader = val_dataloader = test_dataloader = dict(
    batch_size=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root='data', data_prefix='folders',
                 pipeline=[load, pack]),
)
val_evaluator = test_evaluator = dict(type='Accuracy', topk=1)
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(num_classes=2, mean=[0] * 3, std=[255] * 3),
    backbone=dict(type='ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8,
                  norm_cfg=norm_cfg),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=64,
              loss=dict(type='CrossEntropyLoss')),
)
default_hooks = dict(checkpoint=checkpoint, visualization=dict(type='VisualizationHook'))
visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
tta_model = dict(type='AverageClsScoreTTA')
flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
tta_pipeline = [load, dict(type='TestTimeAug', transforms=[flips, [pack]])]
"""

SEGMENTATION = """
default_scope = 'mmseg'
load, pack = dict(type='LoadImageFromFile'), dict(type='PackSegInputs')
labels = dict(type='LoadAnnotations')
train_dataloader = val_dataloader = test_dataloader = dict(
    batch_size=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='BaseSegDataset', data_root='data', img_suffix='.png',
                 data_prefix=dict(img_path='images', seg_map_path='labels'),
                 metainfo=dict(classes=('a', 'b'), palette=[[0, 0, 0], [255, 0, 0]]),
                 pipeline=[load, labels, pack]),
)
val_evaluator = test_evaluator = dict(type='IoUMetric')
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', size=(32, 32), mean=[0] * 3, std=[255] * 3),
    backbone=dict(type='ResNet', depth=18, base_channels=8, stem_channels=8, norm_cfg=norm_cfg),
    decode_head=dict(type='FCNHead', in_channels=64, channels=8, num_convs=1, num_classes=2,
                     norm_cfg=norm_cfg),
    test_cfg=dict(mode='whole'),
)
default_hooks = dict(checkpoint=checkpoint, visualization=dict(type='SegVisualizationHook'))
visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
tta_model = dict(type='SegTTAModel')
flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
tta_pipeline = [load, dict(type='TestTimeAug', transforms=[flips, [labels], [pack]])]
"""

DETECTION = """
default_scope = 'mmdet'
load = dict(type='LoadImageFromFile')
resize = dict(type='Resize', scale=(64, 64))
pack = dict(type='PackDetInputs', meta_keys=(
    'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction'))
boxes = dict(type='LoadAnnotations', with_bbox=True)
train_dataloader = val_dataloader = test_dataloader = dict(
    batch_size=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CocoDataset', data_root='data', ann_file='boxes.json',
                 data_prefix=dict(img='images'), metainfo=dict(classes=('a',)),
                 pipeline=[load, boxes, resize, pack]),
)
val_evaluator = test_evaluator = dict(type='CocoMetric', ann_file='data/boxes.json')
model = dict(
    type='FCOS',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[0] * 3, std=[255] * 3),
    backbone=dict(type='ResNet', depth=18, base_channels=8, stem_channels=8, norm_cfg=norm_cfg),
    neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=8, num_outs=5,
              norm_cfg=norm_cfg),
    bbox_head=dict(type='FCOSHead', num_classes=1, in_channels=8, feat_channels=8, stacked_convs=1,
                   strides=[4, 8, 16, 32, 64], norm_cfg=norm_cfg),
    test_cfg=dict(nms_pre=20, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5),
                  max_per_img=5),
)
default_hooks = dict(checkpoint=checkpoint, visualization=dict(type='DetVisualizationHook'))
visualizer = dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
tta_model = dict(type='DetTTAModel',
                 tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=5))
flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
tta_pipeline = [load, dict(type='TestTimeAug', transforms=[[resize], flips, [pack]])]
"""


ACTIONS = """
default_scope = 'mmaction'
decode = [dict(type='OpenCVInit'), dict(type='SampleFrames', clip_len=4, frame_interval=1,
                                        num_clips=1), dict(type='OpenCVDecode')]
pack = [dict(type='FormatShape', input_format='NCTHW'), dict(type='PackActionInputs')]
train_dataloader = val_dataloader = test_dataloader = dict(
    batch_size=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='VideoDataset', ann_file='data/videos.txt',
                 data_prefix=dict(video='data/videos'), pipeline=[*decode, *pack]),
)
val_evaluator = test_evaluator = dict(type='AccMetric')
model = dict(
    type='Recognizer3D',
    data_preprocessor=dict(type='ActionDataPreprocessor', mean=[0] * 3, std=[255] * 3,
                           format_shape='NCTHW'),
    backbone=dict(type='ResNet3d', depth=18, base_channels=8, pretrained2d=False,
                  norm_cfg=norm_cfg),
    cls_head=dict(type='I3DHead', num_classes=2, in_channels=64, average_clips='prob'),
)
default_hooks = dict(checkpoint=checkpoint, visualization=dict(type='VisualizationHook'))
visualizer = dict(type='ActionVisualizer', vis_backends=[dict(type='LocalVisBackend')])
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Four images with a class, a label map and a box each."""
    rng = np.random.default_rng(0)
    for name in ('images', 'labels', 'videos', 'folders/a', 'folders/b'):
        (tmp_path / 'data' / name).mkdir(parents=True)
    coco = {'categories': [{'id': 1, 'name': 'a'}], 'images': [], 'annotations': []}
    for i in range(4):
        image = Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
        image.save(tmp_path / f'data/images/{i}.png')
        image.save(tmp_path / f'data/folders/{"ab"[i % 2]}/{i}.png')
        labels = rng.integers(0, 2, (32, 32), dtype=np.uint8)
        Image.fromarray(labels).save(tmp_path / f'data/labels/{i}.png')
        coco['images'].append({'id': i, 'file_name': f'{i}.png', 'width': 32, 'height': 32})
        box = {'id': i + 1, 'image_id': i, 'category_id': 1, 'bbox': [4, 4, 20, 20]}
        coco['annotations'].append({**box, 'area': 400, 'iscrowd': 0})
    (tmp_path / 'data/boxes.json').write_text(json.dumps(coco))
    write_videos(tmp_path / 'data', rng)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_videos(data, rng):
    cv2 = pytest.importorskip('cv2')
    for i in range(4):
        path = data / f'videos/{i}.mp4'
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 8, (32, 32))
        for _ in range(8):
            writer.write(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
        writer.release()
    (data / 'videos.txt').write_text(''.join(f'{i}.mp4 {i % 2}\n' for i in range(4)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('package', 'text', 'metric', 'pictures'),
    [
        ('mmpretrain', CLASSIFICATION, 'accuracy/top1', '*.png'),
        ('mmseg', SEGMENTATION, 'mIoU', 'vis_data/vis_image/*.png'),
        ('mmdet', DETECTION, 'coco/bbox_mAP', '*.png'),
        ('mmaction', ACTIONS, 'acc/top1', None),
    ],
    ids=['classification', 'segmentation', 'detection', 'actions'],
)
def test_train_and_test(folder, train, run_test, capfd, package, text, metric, pictures):
    pytest.importorskip(package)
    (folder / 'c.py').write_text(RUNTIME + text)
    runs = 0

    def run(tool, *argv):
        nonlocal runs
        runs += 1  # mmengine keeps one logger an experiment name
        name = f'experiment_name={folder.name}_{runs}'
        assert tool(['c.py', *argv, '--cfg-options', name, f'train_cfg.max_iters={2 * runs}']) == 0
        assert metric in capfd.readouterr().out

    run(train)
    last = folder / 'work_dirs/c/last_checkpoint'
    assert last.read_text().endswith('iter_2.pth')
    run(train, '--resume')
    checkpoint = last.read_text()
    assert checkpoint.endswith('iter_4.pth')

    shown = ['--show-dir', 'shown'] if pictures else []
    run(run_test, checkpoint, '--out', 'predictions.pkl', *shown)
    assert len(pickle.loads((folder / 'predictions.pkl').read_bytes())) == 4
    if pictures:
        assert len(list((folder / 'shown').glob(pictures))) == 4
    else:
        assert run_test(['c.py', checkpoint, '--show-dir', 'shown']) == 2
        assert 'VisualizationHook of mmaction2 1.2 fails' in capfd.readouterr().err
    if 'tta_model' in text:
        run(run_test, checkpoint, '--tta')
    if 'mmseg' in text:
        run(run_test, checkpoint, '--out', 'maps')
        assert sorted(p.name for p in (folder / 'maps').iterdir()) == [f'{i}.png' for i in range(4)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            'norm_cfg.type=SNN',
            "model.backbone.norm_cfg.type: there is no type 'SNN'",
        ),
        ('norm_cfg.type=sn', 'did you mean SN'),
        (
            'norm_cfg.type=IBN norm_cfg.ratio=2',
            "model.backbone.norm_cfg: norm_cfg=dict(type='IBN'): ratio must lie in [0, 1]",
        ),
        ('norm_cfg.ratios=1', 'SN.__init__() got an unexpected keyword'),
        (
            'norm_cfg.eps=abc',
            "norm_cfg: norm_cfg=dict(type='SN'): eps must be a positive number, got 'abc'",
        ),
    ],
)
def test_mistakes_in_a_detector(folder, train, capsys, options, message):
    pytest.importorskip('mmdet')
    (folder / 'c.py').write_text(RUNTIME + DETECTION)
    options = [f'model.backbone.{option}' for option in options.split()]
    assert train(['c.py', '--cfg-options', *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert not (folder / 'work_dirs').exists()
