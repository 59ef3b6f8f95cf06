"""The rows of whitening differ in the backbone's norms, and at 1 image as a smaller batch asks."""

import pytest

from normplug.norms import GW, SW
from normplug.whitened import WNNConv
from tests.configs.loading import build, load
from tests.configs.rows_whitening import DETECTORS, ONE_IMAGE, ROWS, SEGMENTORS, norm_of
from tests.configs.scales import differences


@pytest.mark.parametrize('name', [row for row in ROWS if norm_of(row) != 'bn'])
def test_rows_differ_in_the_backbones_norms_alone(name):
    bn = load(name.replace(f'_{norm_of(name)}_', '_bn_'))
    found = differences(bn, load(name))
    allowed = {'type', 'model_type', 'norms', 'norm_cfg', 'init_cfg'}
    assert {key.split('.')[2] for key in found if key.startswith('model.backbone.')} <= allowed
    assert all(key.startswith('model.backbone.') for key in found)


@pytest.mark.parametrize(('two', 'one'), ONE_IMAGE.items())
def test_one_image_sees_as_many_images_at_half_the_rate(two, one):
    two, one = load(two), load(one)
    assert (two.train_dataloader.batch_size, one.train_dataloader.batch_size) == (2, 1)
    assert two.optim_wrapper.optimizer.lr == 2 * one.optim_wrapper.optimizer.lr
    assert two.auto_scale_lr.base_batch_size == 2 * one.auto_scale_lr.base_batch_size
    for key in ('max_iters', 'val_interval'):
        if 'max_iters' in two.train_cfg:
            assert one.train_cfg[key] == 2 * two.train_cfg[key]
    if 'max_iters' not in two.train_cfg:
        assert one.train_cfg == two.train_cfg
    for ours, theirs in zip(one.param_scheduler, two.param_scheduler, strict=True):
        if not theirs.by_epoch:
            assert (ours.get('begin', 0), ours.end) == (2 * theirs.get('begin', 0), 2 * theirs.end)


@pytest.mark.parametrize('name', ROWS)
def test_rows_start_from_the_pretraining_of_their_backbone(name):
    backbone = load(name).model.backbone
    folder, file = backbone.init_cfg.checkpoint.removeprefix('work_dirs/').split('/')
    pretraining = load(f'imagenet/{folder}.py')
    assert file == f'epoch_{pretraining.train_cfg.max_epochs}.pth'
    theirs = pretraining.model.backbone
    for key in ('type', 'model_type', 'norms', 'depth', 'base_channels'):
        assert theirs.get(key) == backbone.get(key), key
    for key in ('type', 'num_groups', 'using_bn'):
        assert theirs.norm_cfg.get(key) == backbone.norm_cfg.get(key), key


@pytest.mark.parametrize('name', [DETECTORS[3], SEGMENTORS[4]])
def test_whitening_has_the_published_blocks(name):
    layers = {n: m for n, m in build(load(name)).named_modules() if isinstance(m, SW | GW)}
    stages = (1, 2, 3) if norm_of(name) == 'sw' else (1, 2, 3, 4)
    places = {f'backbone.layer{stage}.{block}.bn1' for stage in stages for block in (0, 1)}
    assert set(layers) == places | {'backbone.bn1'}
    for layer in layers.values():
        assert layer.size == (16 if norm_of(name) == 'sw' else 32)
        assert layer.T == 5
        assert getattr(layer, 'sw_type', 2) == 2


def test_the_whitened_detector_differs_from_bns_by_its_layers_and_their_hook():
    bn = load('faster_rcnn/faster-rcnn_r18-w32_fpn_bn_whitening_digits.py')
    whitened = load('faster_rcnn/faster-rcnn_r18-w32_fpn_wnn_digits.py')
    assert set(differences(bn, whitened)) == {'model.backbone.conv_cfg', 'custom_hooks'}
    convs = [m for m in build(whitened).modules() if isinstance(m, WNNConv)]
    assert len(convs) == 20
