"""Every config builds, and the norm that it promises sits at every layer where it promises it."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from tests.checkpoints.networks import golden_state
from tests.configs import (
    rows_batch_noise,
    rows_classification,
    rows_detection,
    rows_league,
    rows_practice,
    rows_segmentation,
    rows_video,
    rows_whitening,
)
from tests.configs.loading import CONFIGS, build, load
from tests.mm.norm_layers import norm_layers


def fcn(norm):
    return {'backbone': {norm: 20}, 'decode_head': {norm: 1}, 'auxiliary_head': {norm: 1}}


# Config → {part of the model: {norm type: layers}}; a part that is not named has no norm.
EXPECTED = {
    'pretrain/resnet18-w32_digits.py': {'backbone': {'BatchNorm2d': 20}},
    'pretrain/resnet18-w32_bn_digits.py': {'backbone': {'BatchNorm2d': 20}},
    'pretrain/resnet18-w32_gn_digits.py': {'backbone': {'GroupNorm': 20}},
    'pretrain/resnet18-w32_sn_digits.py': {'backbone': {'SN': 20}},
    'pretrain/resnet18-w32_ssn_digits.py': {'backbone': {'SSN': 20}},
    'pretrain/resnet18-w32_ibn-b_digits.py': {'backbone': {'IBN': 3, 'BatchNorm2d': 19}},
    'faster_rcnn/faster-rcnn_r18-w32_fpn_digits.py': {'backbone': {'BatchNorm2d': 20}},
    'faster_rcnn/faster-rcnn_r18-w32_fpn_bn_digits.py': {
        'backbone': {'BatchNorm2d': 20},
        'neck': {'BatchNorm2d': 8},
    },
    'faster_rcnn/faster-rcnn_r18-w32_fpn_frozen-bn_digits.py': {'backbone': {'BatchNorm2d': 20}},
    'faster_rcnn/faster-rcnn_r18-w32_fpn_gn_digits.py': {
        'backbone': {'GroupNorm': 20},
        'neck': {'GroupNorm': 8},
    },
    'faster_rcnn/faster-rcnn_r18-w32_fpn_sn_digits.py': {
        'backbone': {'SN': 20},
        'neck': {'SN': 8},
    },
    'faster_rcnn/faster-rcnn_r18-w32_fpn_ssn_digits.py': {
        'backbone': {'SSN': 20},
        'neck': {'SSN': 8},
    },
    'faster_rcnn/faster-rcnn_r18-w32_fpn_ibn-norm1_digits.py': {
        'backbone': {'IBN': 6, 'BatchNorm2d': 14},
        'neck': {'BatchNorm2d': 8},
    },
    'faster_rcnn/faster-rcnn_r18-w32_fpn_sn-123_digits.py': {
        'backbone': {'SN': 14, 'BatchNorm2d': 6},
        'neck': {'BatchNorm2d': 8},
    },
    'faster_rcnn/faster-rcnn_r18-w32_fpn_frozen-bn_sn-neck-head_digits.py': {
        'backbone': {'PortableSyncBN': 20},
        'neck': {'SN': 8},
        'roi_head': {'SN': 4},
    },
    'fcn/fcn_r18-d8-w32_digits.py': fcn('SyncBatchNorm'),
}
for norm, layer in {'syncbn': 'SyncBatchNorm', 'gn': 'GroupNorm', 'sn': 'SN'}.items():
    EXPECTED[f'fcn/fcn_r18-d8-w32_{norm}_digits.py'] = fcn(layer)
    for data in ('ade', 'cityscapes-day', 'cityscapes-night'):
        EXPECTED[f'fcn/fcn_r18-d8-w32_{norm}_digits-{data}.py'] = fcn(layer)

# The rows of the published tables have tests of their own.
ROWS = rows_detection.EXPECTED | rows_segmentation.EXPECTED | rows_classification.EXPECTED
ROWS |= rows_whitening.EXPECTED | rows_batch_noise.EXPECTED | rows_video.EXPECTED
ROWS |= rows_practice.EXPECTED | rows_league.EXPECTED
EXPECTED |= ROWS


def test_every_config_is_listed():
    leaves = {str(p.relative_to(CONFIGS)) for p in CONFIGS.rglob('*.py') if '_base_' not in p.parts}
    assert leaves == set(EXPECTED)


@pytest.mark.parametrize('name', EXPECTED)
def test_norms_are_where_the_config_promises(name):
    found = {}
    for layer, norm in norm_layers(build(load(name), values=False)).items():
        found.setdefault(layer.split('.')[0], Counter())[norm] += 1
    assert found == EXPECTED[name]


# `fcn_r18-d8-w32_digits.py` leaves the norm, and with it the weights, to the files that take it up.
FINE_TUNED = [
    name
    for name in EXPECTED
    if not name.startswith('pretrain/') and 'w32_digits' not in name and name not in ROWS
]


@pytest.mark.parametrize('name', FINE_TUNED)
def test_models_start_from_the_backbone_of_their_norm(name):
    """A row fine-tunes from a pretraining with its own norm; the digits ones are made here."""
    backbone = load(name).model.backbone
    checkpoint = Path(backbone.init_cfg.checkpoint)
    assert backbone.init_cfg.prefix == 'backbone.'
    pretraining = load(f'pretrain/{checkpoint.parent.name}.py')
    # SyncBN differs from BN in nothing that a checkpoint holds.
    assert pretraining.model.backbone.norm_cfg.type == backbone.norm_cfg.type.removeprefix('Sync')
    assert checkpoint.name == f'epoch_{pretraining.train_cfg.max_epochs}.pth'
    for key in ('depth', 'stem_channels', 'base_channels'):
        assert pretraining.model.backbone[key] == backbone[key]


def test_table_3_starts_from_the_released_file(tmp_path):
    state = golden_state('resnet50_sn')
    path = tmp_path / 'released.pth'
    torch.save({'state_dict': {f'module.{name}': value for name, value in state.items()}}, path)
    backbone = load('faster_rcnn/faster-rcnn_r50_fpn_sn-sn_1x_coco.py').model.backbone
    backbone.init_cfg.checkpoint = str(path)
    with DefaultScope.overwrite_default_scope('mmdet'):
        net = MODELS.build(backbone)
    net.init_weights()
    for ours, released in [('bn1', 'sn1'), ('layer4.2.bn3', 'layer4.2.sn3')]:
        for name in ('weight', 'mean_weight', 'running_var'):
            want = state[f'{released}.{name}'].flatten()
            assert torch.equal(net.get_submodule(ours).state_dict()[name], want), name
    assert torch.equal(net.layer3[0].conv2.weight, state['layer3.0.conv2.weight'])


@pytest.mark.parametrize('name', [name for name in EXPECTED if 'frozen-bn' in name])
def test_frozen_bn_is_frozen(name):
    model = build(load(name), values=False).train()
    for name, module in model.backbone.named_modules():
        if type(module).__name__ == 'BatchNorm2d':
            assert not module.training, name
            assert not module.weight.requires_grad, name


@pytest.mark.parametrize('name', [name for name in EXPECTED if '_coco' in name])
def test_recipe_of_tables_3_and_4(name):
    cfg = load(name)
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[1].end
    # 8 processes; the rate follows the batch.
    images = 1 if '_b1_' in name else 2
    assert cfg.optim_wrapper.optimizer == dict(
        type='SGD', lr=images * 0.01, momentum=0.9, weight_decay=0.0001
    )
    assert cfg.auto_scale_lr.base_batch_size == 8 * images
    assert cfg.train_dataloader.batch_size == images
    # In the league nothing is frozen, but in the row frozen BN, which is Table 3's.
    assert cfg.model.backbone.frozen_stages == (-1 if '_league_' in name else 1)
    # GN's published weights take BGR pixels, the others normalized RGB.
    is_gn = 'detectron' in cfg.model.backbone.init_cfg.checkpoint
    assert cfg.model.data_preprocessor.bgr_to_rgb is not is_gn
