"""Masks and the keys that COCO's metric reads: told of where they break or spoil something."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from normplug.launch import UserError, load_config
from normplug.preflight.data import check_data
from normplug.preflight.data.masks import run_length_totals

MASKS = """
boxes.update(with_mask=True)
train_dataloader = dict(train_dataloader, dataset=dict(dataset, ann_file='boxes.json'))
val_dataloader['dataset'].update(ann_file='boxes.json')
val_evaluator.update(ann_file='data/boxes.json', metric=['bbox', 'segm'])
"""
BOX = [4, 4, 24, 4, 24, 24]
LESS = 'polygons of less than three points, or of an odd number of coordinates'
SUM = 'run lengths that do not add up to the image'
AREA = np.zeros((32, 40), np.uint8, order='F')
AREA[4:24, 4:24] = 1
COMPRESSED = coco_mask.encode(AREA)['counts'].decode()


def run_lengths(counts, size=(32, 40)):
    return {'size': list(size), 'counts': counts}


def told(cfg, phase):
    """What is said of a phase: nothing, or an error, or a warning, with its text."""
    try:
        lines = check_data(cfg, (phase,))
    except UserError as error:
        return f'error {error}'
    assert len(lines) < 2
    return f'warning {lines[0]}' if lines else ''


@pytest.mark.parametrize(
    ('values', 'train', 'val'),
    [
        ({}, '', ''),
        ({'segmentation': run_lengths([1280])}, '', ''),
        ({'segmentation': run_lengths(COMPRESSED)}, '', ''),
        ({'iscrowd': 1}, '', ''),  # of polygons
        ({'segmentation': [BOX, [4, 4, 24, 24]]}, 'warning', 'warning'),
        ({'segmentation': [[4, 4, 24, 4]]}, 'warning', 'error'),
        ({'segmentation': [[4, 4]]}, 'warning', 'error'),
        ({'segmentation': [[]]}, 'warning', 'error'),
        ({'segmentation': [[], BOX]}, 'warning', 'error'),
        ({'segmentation': [[*BOX, 4]]}, 'warning', 'error'),
        ({'segmentation': [[[4, 4], [24, 4], [24, 24]]]}, 'warning', 'error'),
    ],
)
def test_polygons(detection, values, train, val):
    """mmdet leaves small polygons out; pycocotools stops at some, and misreads odd ones."""
    detection.write_config(MASKS)
    detection.change_annotation(**values)
    cfg = load_config('config.py')
    for phase, kind in (('train', train), ('val', val)):
        said = told(cfg, phase)
        assert said.startswith(kind)
        assert bool(said) == bool(kind)
        if kind:
            assert f'{phase}_dataloader.dataset.ann_file data/boxes.json: {LESS}: 1 (ann' in said
            assert 'annotation 2 of 1.png' in said


@pytest.mark.parametrize(
    ('mask', 'message'),
    [
        (BOX, 'polygons that are not a list of lists'),
        ([['4', '4', '24', '4', '24', '24']], 'coordinates that are not a place in an image'),
        ([[float('nan'), *BOX[1:]]], 'coordinates that are not a place in an image'),
        ([[1e9, *BOX[1:]]], 'coordinates that are not a place in an image'),
        (run_lengths([1280], (40, 32)), 'another size [height, width] than their image: 1'),
        (run_lengths([10, 20]), SUM),
        (run_lengths([-20, 1300]), SUM),
        (run_lengths([]), SUM),
        (run_lengths(COMPRESSED[:-3]), SUM),
        (run_lengths(COMPRESSED[:-1] + 'p'), SUM),
        (run_lengths('no run lengths'), SUM),
        ('polygon', 'masks that are neither polygons nor run lengths'),
        (None, 'annotations without segmentation'),
    ],
)
def test_masks_that_break_training_and_metric(detection, mask, message):
    detection.write_config(MASKS)
    detection.change_annotation(segmentation=mask)
    for phase in ('train', 'val'):
        assert f'{message}' in told(load_config('config.py'), phase)
    # Nobody reads them where boxes alone are asked for.
    detection.write_config(MASKS.replace("'segm'", '') + 'boxes.update(with_mask=False)')
    for phase in ('train', 'val'):
        assert told(load_config('config.py'), phase) == ''


def test_run_lengths_without_size(detection):
    detection.write_config(MASKS)
    detection.change_annotation(segmentation={'counts': [1280]})
    what = 'masks without size and counts'
    assert told(load_config('config.py'), 'train').startswith('warning')
    assert what in told(load_config('config.py'), 'train')
    assert what in told(load_config('config.py'), 'val')
    assert told(load_config('config.py'), 'val').startswith('error')


def test_run_lengths_where_polygons_alone_are_read(detection):
    detection.change_annotation(segmentation=run_lengths(COMPRESSED))
    detection.write_config(MASKS + 'boxes.update(poly2mask=False)')
    said = told(load_config('config.py'), 'train')
    assert said.startswith('warning')
    assert 'set poly2mask=True' in said


@pytest.mark.parametrize('scale', [0.01, 1000])
def test_masks_in_other_units_than_boxes(detection, scale):
    detection.write_config(MASKS)
    detection.change_annotation(segmentation=[[round(value * scale, 2) for value in BOX]])
    assert 'masks that lie beside their bbox: 1' in told(load_config('config.py'), 'train')


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'iscrowd': None}, 'annotations without iscrowd: 1 (number 1)'),
        ({'iscrowd': '0'}, 'annotations whose iscrowd is not 0 or 1: 1'),
        ({'id': 0}, 'annotations of id 0: 1 (annotation 0 of 1.png'),
        ({'id': 1}, 'annotation ids that are used twice: 1 (id 1)'),
    ],
)
def test_what_the_metric_reads(detection, values, message):
    detection.write_config(MASKS)
    detection.change_annotation(**values)
    assert message in told(load_config('config.py'), 'val')
    train = told(load_config('config.py'), 'train')
    bears = values in ({'iscrowd': None}, {'id': 0})
    assert bears == (train == '')
    # Predictions that are only written need none of it.
    detection.write_config(
        MASKS + "val_evaluator.update(format_only=True, outfile_prefix='x')\n"
        "val_dataloader['dataset']['pipeline'] = [load]\n"
    )
    if bears:
        assert told(load_config('config.py'), 'val') == ''


@pytest.mark.parametrize('values', [{'image_id': '1'}, {'image_id': [1]}, {'category_id': [1]}])
def test_ids_of_another_type(detection, values):
    detection.change_annotation(**values)
    assert told(load_config('config.py'), 'train').startswith('error')


def test_a_file_name_like_a_polygon(detection):
    """Also where it looks like a segmentation: polygons are put aside before JSON is parsed."""
    name = '"segmentation": [[2024,1,2,3,4,5]].png'
    detection.write_config(MASKS)
    (detection.images / '1.png').rename(detection.images / name)
    detection.change_image(file_name=name)
    assert told(load_config('config.py'), 'train') == ''
    (detection.images / name).unlink()
    assert name in told(load_config('config.py'), 'train')


def test_an_annotation_to_ignore_needs_no_box(detection):
    detection.coco['annotations'].append({'id': 9, 'image_id': 1, 'category_id': 1, 'ignore': 1})
    detection.write_coco()
    assert told(load_config('config.py'), 'train') == ''


def test_crowds_alone_are_nothing_to_train_on(detection):
    for annotation in detection.coco['annotations']:
        annotation['iscrowd'] = 1
    detection.write_coco()
    assert 'nothing to train on' in told(load_config('config.py'), 'train')


def test_totals_of_run_lengths_as_pycocotools_writes_them():
    rng = np.random.default_rng(0)
    masks = [rng.random((h, w)) < p for h, w, p in [(9, 7, 0.5), (300, 400, 0.01), (1, 1, 0)]]
    masks += [np.ones((640, 427), bool), AREA.astype(bool)]
    strings = [
        coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))['counts'].decode()
        for mask in masks
    ]
    assert run_length_totals(strings).tolist() == [mask.size for mask in masks]
    assert run_length_totals([strings[0], '', 'ö', '`', strings[1]]).tolist()[::4] == [63, 120000]
    assert json.dumps(run_length_totals(['', '`', '~~']).tolist()) == '[-1, -1, -1]'
