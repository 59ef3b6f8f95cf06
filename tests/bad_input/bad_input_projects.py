"""Small whole projects, each of which a row of the tables then spoils."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

RUNTIME = """
custom_imports = dict(imports=['normplug'])
work_dir = 'work'
train_cfg = dict(type='IterBasedTrainLoop', max_iters=40, val_interval=100)
val_cfg = test_cfg = dict()
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.001))
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1),
)
norm_cfg = dict(type='SN')
backbone = dict(type='ResNet', depth=18, base_channels=8, stem_channels=8, norm_cfg=norm_cfg)
"""

DETECTION = """
default_scope = 'mmdet'
load = dict(type='LoadImageFromFile')
boxes = dict(type='LoadAnnotations', with_bbox=True)
resize = dict(type='Resize', scale=(40, 32))
pack = dict(type='PackDetInputs', meta_keys=(
    'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
dataset = dict(type='CocoDataset', data_root='data', ann_file='boxes.json',
               data_prefix=dict(img='images'), metainfo=dict(classes=('cat', 'dog')),
               pipeline=[load, boxes, resize, pack])
train_dataloader = dict(batch_size=1, num_workers=0, dataset=dataset,
                        sampler=dict(type='DefaultSampler', shuffle=False))
val_dataloader = test_dataloader = dict(
    batch_size=1, dataset=dict(dataset, test_mode=True, ann_file='val.json'),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_evaluator = test_evaluator = dict(type='CocoMetric', ann_file='data/val.json')
model = dict(
    type='FCOS',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[0] * 3, std=[255] * 3),
    backbone=backbone,
    neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=8, num_outs=5),
    bbox_head=dict(type='FCOSHead', num_classes=2, in_channels=8, feat_channels=8,
                   stacked_convs=1, strides=[4, 8, 16, 32, 64], norm_cfg=norm_cfg),
    test_cfg=dict(nms_pre=20, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5),
                  max_per_img=5),
)
"""

SEGMENTATION = """
default_scope = 'mmseg'
load, labels = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')
dataset = dict(type='BaseSegDataset', data_root='data', img_suffix='.png',
               data_prefix=dict(img_path='images', seg_map_path='labels'),
               metainfo=dict(classes=('cat', 'dog'), palette=[[0, 0, 0], [255, 0, 0]]),
               pipeline=[load, labels, dict(type='PackSegInputs')])
train_dataloader = val_dataloader = test_dataloader = dict(
    batch_size=2, num_workers=0, dataset=dataset,
    sampler=dict(type='DefaultSampler', shuffle=False))
val_evaluator = test_evaluator = dict(type='IoUMetric')
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', size=(32, 32), mean=[0] * 3, std=[255] * 3),
    backbone=backbone,
    decode_head=dict(type='FCNHead', in_channels=64, channels=8, num_convs=1, num_classes=2),
    test_cfg=dict(mode='whole'),
)
"""

CLASSIFICATION = """
default_scope = 'mmpretrain'
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
dataset = dict(type='CustomDataset', data_root='data', data_prefix='train', pipeline=pipeline)
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dataset,
                        sampler=dict(type='DefaultSampler', shuffle=False))
val_dataloader = test_dataloader = dict(
    batch_size=2, num_workers=0, dataset=dict(dataset, data_prefix='val'),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_evaluator = test_evaluator = dict(type='Accuracy')
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(num_classes=2, mean=[0] * 3, std=[255] * 3),
    backbone=backbone,
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=64,
              loss=dict(type='CrossEntropyLoss')),
)
"""

VIDEO = """
default_scope = 'mmaction'
sample = dict(type='SampleFrames', clip_len=4, frame_interval=2)
pack = [dict(type='FormatShape', input_format='NCTHW'), dict(type='PackActionInputs')]
dataset = dict(type='VideoDataset', data_root='data', ann_file='train.txt',
               data_prefix=dict(video='videos'),
               pipeline=[dict(type='OpenCVInit'), sample, dict(type='OpenCVDecode'), *pack])
frames = dict(type='RawframeDataset', data_root='data', ann_file='frames.txt',
              data_prefix=dict(img='frames'),
              pipeline=[sample, dict(type='RawFrameDecode'), *pack])
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dataset,
                        sampler=dict(type='DefaultSampler', shuffle=False))
val_dataloader = test_dataloader = dict(
    batch_size=2, num_workers=0, dataset=dict(dataset, test_mode=True),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_evaluator = test_evaluator = dict(type='AccMetric')
model = dict(
    type='Recognizer3D',
    backbone=dict(type='ResNet3d', depth=18, pretrained=None, base_channels=8, norm_cfg=norm_cfg),
    cls_head=dict(type='I3DHead', in_channels=64, num_classes=2),
)
"""


@dataclass(frozen=True)
class Row:
    """A wrong input.

    Attributes:
        name: what is wrong.
        make: makes it of a good project; returns more arguments of the command line, or None.
        messages: texts that the message must have: the key or file, and what to do.
    """

    name: str
    make: Callable
    messages: tuple[str, ...]


def config(line: str) -> Callable:
    """For a row: change the config by a line at its end."""
    return lambda project: project.write_config(line + '\n')


class DataProject:
    """A config with data in the current folder, which is a test's own."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder = folder
        self.text = RUNTIME + text
        self.images = folder / 'data/images'
        self.labels = folder / 'data/labels'
        for path in (self.images, self.labels):
            path.mkdir(parents=True)
        self.coco = {
            'categories': [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'}],
            'images': [],
            'annotations': [],
        }
        rng = np.random.default_rng(0)
        for i in range(4):
            self.save(self.images / f'{i}.png', rng.integers(0, 255, (32, 40, 3)))
            self.save(self.labels / f'{i}.png', rng.integers(0, 2, (32, 40)))
            image = {'id': i, 'file_name': f'{i}.png', 'width': 40, 'height': 32}
            self.coco['images'].append(image)
            box = {'id': i + 1, 'image_id': i, 'category_id': 1 + i % 2, 'bbox': [4, 4, 20, 20]}
            corners = [[4, 4, 24, 4, 24, 24]]
            self.coco['annotations'].append(
                {**box, 'area': 400, 'iscrowd': 0, 'segmentation': corners}
            )
        self.write_config()
        self.write_coco()
        (folder / 'data/val.json').write_text(json.dumps(self.coco))

    @staticmethod
    def save(path: Path, pixels: np.ndarray) -> None:
        """Write (H, W) as grey, (H, W, 3) as colours."""
        Image.fromarray(pixels.astype(np.uint8)).save(path)

    def write_config(self, more: str = '') -> None:
        """(Re)write config.py with the lines ``more`` at its end."""
        name = f"experiment_name = '{self.folder.name}'\n"  # mmengine keeps a logger for each
        (self.folder / 'config.py').write_text(self.text + name + more)

    def write_coco(self, text: str | None = None) -> None:
        """(Re)write boxes.json, the annotations to train on."""
        text = json.dumps(self.coco) if text is None else text
        (self.folder / 'data/boxes.json').write_text(text)

    def change_annotation(self, **values) -> None:
        """Change the second annotation and write the file; a value of None removes the key."""
        self._change(self.coco['annotations'][1], values)

    def change_image(self, **values) -> None:
        """Change the second image's entry and write the file."""
        self._change(self.coco['images'][1], values)

    def _change(self, entry: dict, values: dict) -> None:
        entry.update(values)
        for key in [key for key, value in values.items() if value is None]:
            del entry[key]
        self.write_coco()

    def truncate(self, path: Path) -> None:
        """Cut a file in half."""
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file below ``folder`` with its bytes, and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob('*')
    }
