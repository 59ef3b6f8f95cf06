import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from normplug.data.build import DigitsSettings, build_digits
from normplug.data.coco import box, outline, segmentation
from normplug.data.scene import SceneSettings

CLASSES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')


@pytest.fixture(scope='module')
def cocos(digits):
    return {
        split: COCO(digits / f'coco/annotations/instances_{split}.json')
        for split in ('train', 'val')
    }


def decode(words, shape):
    """As COCO.annToMask does, from the segmentation alone."""
    if isinstance(words, list):
        words = coco_mask.merge(coco_mask.frPyObjects(words, *shape))
    elif isinstance(words['counts'], list):
        words = coco_mask.frPyObjects(words, *shape)
    return coco_mask.decode(words).astype(bool)


def test_head_of_the_file(cocos):
    for coco in cocos.values():
        assert list(coco.dataset) == ['info', 'licenses', 'images', 'annotations', 'categories']
        assert [c['id'] for c in coco.dataset['categories']] == list(range(1, 11))
        names = [c['name'] for c in coco.dataset['categories']]
        assert names == [
            'zero',
            'one',
            'two',
            'three',
            'four',
            'five',
            'six',
            'seven',
            'eight',
            'nine',
        ]
        assert {c['supercategory'] for c in coco.dataset['categories']} == {'digit'}
        licenses = {entry['id'] for entry in coco.dataset['licenses']}
        assert {image['license'] for image in coco.dataset['images']} <= licenses


def test_images_are_there_in_the_stated_size(cocos, digits):
    for split, count in (('train', 50), ('val', 10)):
        images = cocos[split].dataset['images']
        assert [image['id'] for image in images] == list(range(1, count + 1))
        names = [f'{k:012d}.jpg' for k in range(1, count + 1)]
        assert [image['file_name'] for image in images] == names
        assert sorted(path.name for path in (digits / 'coco' / split).iterdir()) == names
        for image in images:
            with Image.open(digits / 'coco' / split / image['file_name']) as picture:
                assert (picture.format, picture.mode) == ('JPEG', 'RGB')
                assert picture.size == (image['width'], image['height']) == (96, 96)


def test_boxes_and_areas_are_those_of_the_masks(cocos):
    for coco in cocos.values():
        assert len(coco.anns) == len(coco.dataset['annotations']) > 20
        for annotation in coco.dataset['annotations']:
            mask = coco.annToMask(annotation)
            assert mask.shape == (96, 96)
            assert annotation['bbox'] == coco_mask.toBbox(coco.annToRLE(annotation)).tolist()
            assert annotation['area'] == mask.sum() > 0
            assert annotation['iscrowd'] == 0


def test_every_kind_of_segmentation_occurs(cocos):
    words = [a['segmentation'] for a in cocos['train'].dataset['annotations']]
    polygons = [w for w in words if isinstance(w, list)]
    assert any(len(w) == 1 for w in polygons)
    assert any(len(w) > 1 for w in polygons)
    assert {type(w['counts']) for w in words if isinstance(w, dict)} == {str, list}


def test_the_splits_share_no_scan(cocos):
    scans = {
        split: {a['scan_id'] for a in coco.dataset['annotations']} for split, coco in cocos.items()
    }
    assert min(map(len, scans.values())) > 20
    assert not scans['train'] & scans['val']


def test_some_images_are_empty(tmp_path):
    scene = SceneSettings(size=64, empty=0.5)
    build_digits(tmp_path, ['coco'], DigitsSettings(train=12, val=1, scene=scene))
    data = json.loads((tmp_path / 'coco/annotations/instances_train.json').read_text())
    filled = {a['image_id'] for a in data['annotations']}
    assert 0 < len(filled) < len(data['images']) == 12


@pytest.mark.parametrize('seed', range(20))
@pytest.mark.parametrize('compress', [True, False])
def test_segmentation_gives_back_any_mask(seed, compress):
    # Noise has every hard case: single pixels, pixels that touch at a corner, holes.
    rng = np.random.default_rng(seed)
    mask = rng.random((7, 9)) < rng.uniform(0.15, 0.9)
    mask[rng.integers(7), rng.integers(9)] = True
    assert np.array_equal(decode(segmentation(mask, compress), mask.shape), mask)


def test_outlines_of_small_masks():
    assert outline(np.ones((1, 2), bool)) == [[(0, 0), (2, 0), (2, 1), (0, 1)]]
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    assert sorted(map(len, outline(ring))) == [4, 4]
    # A ring that is open at a corner only: one outline, passing that corner twice.
    ring[0, 0] = False
    (loop,) = outline(ring)
    assert loop.count((1, 1)) == 2


def test_segmentation_is_polygons_unless_there_is_a_hole():
    mask = np.zeros((5, 8), bool)
    mask[1:4, 1:4] = mask[2, 5:7] = True
    assert segmentation(mask, compress=True) == [
        [1, 1, 4, 1, 4, 4, 1, 4],
        [5, 2, 7, 2, 7, 3, 5, 3],
    ]
    mask[2, 2] = False
    assert segmentation(mask, compress=False) == {
        'size': [5, 8],
        'counts': [6, 3, 2, 1, 1, 1, 2, 3, 8, 1, 4, 1, 7],
    }
    assert isinstance(segmentation(mask, compress=True)['counts'], str)
    assert box(mask) == [1, 1, 6, 3]
