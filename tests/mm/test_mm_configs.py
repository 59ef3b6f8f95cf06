"""Contract, point 5: configs of the mm packages with only the norm changed."""

import re
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData

from tests.mm.norm_layers import (
    all_types,
    build,
    norm_layers,
    of_batch_norm,
    own_layers,
    randomize,
)

MMDET = """
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['normplug'])
norm_cfg = dict(type='{norm}')
model = dict(backbone=dict(norm_cfg=norm_cfg))
"""

MMDET_EVERYWHERE = """
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['normplug'])
norm_cfg = dict(type='{norm}')
model = dict(
    backbone=dict(norm_cfg=norm_cfg, frozen_stages=-1, norm_eval=False),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=16,
            fc_out_channels=16, norm_cfg=norm_cfg)),
    train_cfg=dict(rcnn=dict(sampler=dict(num=16))))
"""

MMSEG = """
_base_ = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'
custom_imports = dict(imports=['normplug'])
norm_cfg = dict(type='{norm}')
model = dict(
    backbone=dict(norm_cfg=norm_cfg),
    decode_head=dict(norm_cfg=norm_cfg),
    auxiliary_head=dict(norm_cfg=norm_cfg))
"""

MMPRETRAIN = """
_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'
custom_imports = dict(imports=['normplug'])
norm_cfg = dict(type='{norm}')
model = dict(backbone=dict(norm_cfg=norm_cfg))
"""

LEAVES = {'mmdet': MMDET, 'mmseg': MMSEG, 'mmpretrain': MMPRETRAIN}


def leaf(tmp_path, text, norm):
    pytest.importorskip(re.search(r"'(\w+)::", text)[1])
    path = tmp_path / f'{norm.lower()}.py'
    path.write_text(text.format(norm=norm))
    return Config.fromfile(path)


def base_of(tmp_path, text):
    """The config that ``text`` inherits, as it is."""
    return leaf(tmp_path, text[: text.index('custom_imports')], 'base')


def model_of(cfg):
    return build(cfg.model, cfg.default_scope)


def resnet_layers(blocks, convs, prefix='backbone.', stem=('bn1',)):
    """Names of the norm layers of a ResNet."""
    names = {f'{prefix}{name}' for name in stem}
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            at = f'{prefix}layer{stage}.{block}'
            names |= {f'{at}.bn{i + 1}' for i in range(convs)}
        if convs == 3 or stage > 1:
            names.add(f'{prefix}layer{stage}.0.downsample.1')
    return names


R50 = resnet_layers((3, 4, 6, 3), 3)
EXPECTED = {
    'mmdet': R50,
    'mmseg': resnet_layers((3, 4, 6, 3), 3, stem=('stem.1', 'stem.4', 'stem.7'))
    | {'decode_head.convs.0.bn', 'decode_head.convs.1.bn', 'decode_head.conv_cat.bn'}
    | {'auxiliary_head.convs.0.bn'},
    'mmpretrain': resnet_layers((2, 2, 2, 2), 2),
}


@pytest.mark.parametrize('scope', LEAVES)
def test_the_norm_is_where_the_batch_norm_was_and_nowhere_else(scope, tmp_path):
    model = model_of(leaf(tmp_path, LEAVES[scope], 'SN'))
    assert norm_layers(model) == dict.fromkeys(EXPECTED[scope], 'SN')
    base = model_of(base_of(tmp_path, LEAVES[scope]))
    assert norm_layers(base).keys() == EXPECTED[scope]
    assert of_batch_norm(base.state_dict(), 'SN') <= model.state_dict().keys()


def test_the_norm_of_the_backbone_alone_leaves_batch_norm_in_the_heads(tmp_path):
    """mmseg's bases write ``norm_cfg`` at three places: a leaf that sets one changes one."""
    text = MMSEG[: MMSEG.index('    decode_head')] + ')\n'
    layers = norm_layers(model_of(leaf(tmp_path, text, 'SN')))
    assert {layers[name] for name in layers if name.startswith('backbone')} == {'SN'}
    assert {layers[name] for name in layers if 'head' in name} == {'SyncBatchNorm'}


@all_types
def test_a_detector_with_the_norm_everywhere(norm_type, tmp_path):
    model = model_of(leaf(tmp_path, MMDET_EVERYWHERE, norm_type))
    expected = R50 | {
        *(f'neck.{kind}_convs.{i}.bn' for kind in ('lateral', 'fpn') for i in range(4)),
        *(f'roi_head.bbox_head.shared_convs.{i}.bn' for i in range(4)),
    }
    assert norm_layers(model) == dict.fromkeys(expected, norm_type)


def assert_learns(model, loss, without=()):
    """Every norm parameter gets a gradient, but those of layers that start with ``without``."""
    loss.backward()
    for name, layer in own_layers(model).items():
        for key, parameter in layer.named_parameters():
            where = f'{name}.{key}'
            if name.startswith(without):
                assert parameter.grad is None, where
            else:
                assert torch.isfinite(parameter.grad).all(), where
                assert parameter.grad.abs().sum() > 0, where


def detection_loss(model, size=64):
    from mmdet.testing import demo_mm_inputs

    data = demo_mm_inputs(2, [[3, size, size]] * 2, num_items=[2, 2], num_classes=80)
    data = model.data_preprocessor(data, training=True)
    return model.parse_losses(model(**data, mode='loss'))[0]


# frozen_stages=1 of mmdet's base: the stem and the first stage do not learn.
FROZEN_STAGES = ('backbone.bn1', 'backbone.layer1.')


def test_mmdet_config_learns_outside_its_frozen_stages(tmp_path):
    torch.manual_seed(0)
    model = randomize(model_of(leaf(tmp_path, MMDET, 'SN')))
    assert_learns(model, detection_loss(model), without=FROZEN_STAGES)
    for name, layer in own_layers(model).items():
        assert layer.training == (not name.startswith(FROZEN_STAGES)), name
        assert layer.num_batches_tracked == int(layer.training), name


def test_mmdet_config_with_the_norm_everywhere_learns(tmp_path):
    torch.manual_seed(0)
    model = randomize(model_of(leaf(tmp_path, MMDET_EVERYWHERE, 'SN')))
    assert_learns(model, detection_loss(model))


def test_mmseg_config_learns(tmp_path):
    structures = pytest.importorskip('mmseg.structures')

    torch.manual_seed(0)
    model = randomize(model_of(leaf(tmp_path, MMSEG, 'SN')))
    samples = [
        structures.SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 19, (1, 64, 64))))
        for _ in range(2)
    ]
    losses = model(torch.randn(2, 3, 64, 64), samples, mode='loss')
    assert_learns(model, model.parse_losses(losses)[0])


@all_types
def test_mmpretrain_config_learns(norm_type, tmp_path):
    structures = pytest.importorskip('mmpretrain.structures')

    torch.manual_seed(0)
    model = randomize(model_of(leaf(tmp_path, MMPRETRAIN, norm_type)))
    samples = [structures.DataSample().set_gt_label(label) for label in (1, 7)]
    losses = model(torch.randn(2, 3, 64, 64), samples, mode='loss')
    assert_learns(model, model.parse_losses(losses)[0])


FRESH = """
import sys
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
assert 'normplug' not in sys.modules
cfg = Config.fromfile(sys.argv[1])
init_default_scope(cfg.default_scope)
model = MODELS.build(cfg.model)
print(sum(type(m).__name__ == 'SN' for m in model.modules()), 'SN layers')
"""


@pytest.mark.slow
@pytest.mark.parametrize('scope', LEAVES)
def test_custom_imports_is_the_only_switch(scope, tmp_path):
    """In a process that has not imported the package."""
    leaf(tmp_path, LEAVES[scope], 'SN')
    command = [sys.executable, '-c', FRESH, str(tmp_path / 'sn.py')]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert f'{len(EXPECTED[scope])} SN layers' in done.stdout
