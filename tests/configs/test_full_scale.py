"""A published row as it is, on a few files of COCO's form and size."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.utils import mkdir_or_exist
from PIL import Image
from sklearn.datasets import load_sample_images

import normplug  # noqa: F401  before mmdet, which imports mmcv's compiled operators

ROOT = Path(__file__).parents[2]
# COCO's ids have gaps.
GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
IDS = [number for number in range(1, 91) if number not in GAPS]


def write_coco(folder, split, sizes):
    """Photographs with rectangles on them, as objects of random classes with masks."""
    from mmdet.datasets import CocoDataset

    rng = np.random.default_rng(len(sizes))
    photos = load_sample_images().images
    found = {'images': [], 'annotations': []}
    mkdir_or_exist(folder / split)
    for number, (width, height) in enumerate(sizes, start=1):
        name = f'{number:012d}.jpg'
        picture = np.array(Image.fromarray(photos[number % 2]).resize((width, height)))
        for _ in range(5):
            w, h = rng.integers(30, 300, 2).tolist()
            x, y = int(rng.integers(width - w)), int(rng.integers(height - h))
            kind = int(rng.integers(len(IDS)))
            picture[y : y + h, x : x + w] = [3 * kind, 255 - 3 * kind, 37 * kind % 256]
            found['annotations'].append(
                {
                    'id': len(found['annotations']) + 1,
                    'image_id': number,
                    'category_id': IDS[kind],
                    'bbox': [x, y, w, h],
                    'area': w * h,
                    'iscrowd': 0,
                    'segmentation': [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
        Image.fromarray(picture).save(folder / split / name)
        found['images'].append({'id': number, 'file_name': name, 'width': width, 'height': height})
    names = CocoDataset.METAINFO['classes']
    found['categories'] = [{'id': i, 'name': name} for i, name in zip(IDS, names, strict=True)]
    mkdir_or_exist(folder / 'annotations')
    (folder / f'annotations/instances_{split}.json').write_text(json.dumps(found))


@pytest.mark.slow
def test_mask_rcnn_of_table_4_trains_on_files_of_cocos_form(tmp_path):
    """Of the size too: ResNet-50 at 800x1333; from scratch, one step, then the evaluation."""
    pytest.importorskip('mmdet')
    write_coco(tmp_path / 'data/coco', 'train2017', [(640, 427)])
    write_coco(tmp_path / 'data/coco', 'val2017', [(640, 480)])
    config = ROOT / 'configs/mask_rcnn/mask-rcnn_r50_fpn_sn-sn_2x_coco.py'
    options = ['train_cfg.max_epochs=1', 'train_dataloader.batch_size=1']
    options += ['model.backbone.init_cfg=None', 'model.backbone.frozen_stages=-1']
    options += ['default_hooks.logger.interval=1']
    command = [
        sys.executable,
        ROOT / 'tools/train.py',
        config,
        '--work-dir',
        'run',
        '--cfg-options',
    ]
    process = subprocess.run(
        [*map(str, command), *options], cwd=tmp_path, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-2000:]
    (scalars,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    (loss,) = [line['loss'] for line in lines if 'loss' in line]
    assert np.isfinite(loss)
    # The warm-up's first iteration, for 16 images.
    assert lines[0]['lr'] == pytest.approx(0.02 / 3)
    assert (tmp_path / 'run/epoch_1.pth').exists()
