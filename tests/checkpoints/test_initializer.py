"""``init_cfg=dict(type='ReleasedPretrained')`` in the mm packages, and the check beforehand."""

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from normplug.checkpoints import CheckpointError, convert, read
from normplug.launch import UserError
from normplug.preflight.pretrained import check_pretrained
from tests.checkpoints.networks import assert_same_tensors, classifier, released_state, resnet

SN = {'type': 'SN', 'released_statistics': True}


@pytest.fixture
def released(tmp_path):
    torch.save({'state_dict': released_state('sn', 18)}, tmp_path / 'resnet18_sn.pth')
    return str(tmp_path / 'resnet18_sn.pth')


def backbone(path, scope='mmdet', depth=18, norm_cfg=SN, **options):
    init_cfg = {'type': 'ReleasedPretrained', 'checkpoint': path}
    widths = {'stem_channels': 4, 'base_channels': 4}
    return resnet(scope, depth, norm_cfg=norm_cfg, init_cfg=init_cfg, **widths, **options)


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
def test_backbones(scope, released):
    net = backbone(released, scope)
    net.init_weights()
    want = convert(read(released)).state
    assert_same_tensors(dict(net.state_dict()), want)  # no residual zeroed after the load


def test_a_classifier_with_its_head(released):
    net = classifier(18, SN)
    net.init_cfg = {'type': 'ReleasedPretrained', 'checkpoint': released}
    net.init_weights()
    assert_same_tensors(dict(net.state_dict()), convert(read(released), 'classifier').state)


def test_first_stages_alone(released):
    """A C4 backbone has no fourth stage."""
    net = backbone(released, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1),
                   out_indices=(2,))  # fmt: skip
    net.init_weights()
    want = convert(read(released)).state
    assert torch.equal(net.layer3[1].bn2.weight, want['layer3.1.bn2.weight'])
    (text,) = check_pretrained(backbone(released))
    assert 'used: 140 of 142 tensors' in text


def test_a_detector(released):
    pytest.importorskip('mmdet')
    neck = dict(type='FPN', in_channels=[4, 8, 16, 32], out_channels=4, num_outs=5)
    bone = dict(type='ResNet', depth=18, stem_channels=4, base_channels=4, norm_cfg=SN)
    bone |= dict(norm_eval=False, init_cfg=dict(type='ReleasedPretrained', checkpoint=released))
    head = dict(type='RetinaHead', num_classes=2, in_channels=4, feat_channels=4, stacked_convs=1)
    with DefaultScope.overwrite_default_scope('mmdet'):
        net = MODELS.build(dict(type='RetinaNet', backbone=bone, neck=neck, bbox_head=head))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    (text,) = check_pretrained(net)
    assert_same_tensors(dict(net.state_dict()), before)  # the check loads nothing
    assert text.startswith(f'model.backbone.init_cfg.checkpoint {released}: ResNet-18; norm')
    assert "norm_cfg=dict(type='SN', released_statistics=True" in text
    net.init_weights()
    want = convert(read(released)).state
    assert_same_tensors(dict(net.backbone.state_dict()), want)
    assert net.neck.lateral_convs[0].conv.weight.std() > 0


BAD = {
    'depth': (dict(depth=34), 'is of a ResNet-18, but model is a ResNet-34: correct the depth'),
    'batch norm': (dict(norm_cfg={'type': 'BN'}), 'unknown to the model: bn1.mean_weight'),
    'without bn': (
        dict(norm_cfg={'type': 'SN', 'using_bn': False}),
        'bn1.mean_weight (3,) (model: (2,))',
    ),
    'ssn': (dict(norm_cfg={'type': 'SSN'}), 'missing in the file: bn1.radius'),
    'wider': (dict(frozen_stages=1, in_channels=4), 'conv1.weight (4, 3, 7, 7) (model: (4, 4'),
}


@pytest.mark.parametrize('name', BAD)
def test_what_does_not_fit(name, released):
    options, message = BAD[name]
    net = backbone(released, **options)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(UserError) as told:
        check_pretrained(net)
    assert str(told.value).startswith(f'model.init_cfg.checkpoint: {released} ')
    assert message in str(told.value)
    with pytest.raises(CheckpointError):
        net.init_weights()
    assert_same_tensors(dict(net.state_dict()), before)  # not half of it


def test_missing_file_and_unknown_option(tmp_path):
    with pytest.raises(UserError, match=r'model\.init_cfg\.checkpoint: .*gone\.pth.* not'):
        check_pretrained(backbone(str(tmp_path / 'gone.pth')))
    net = backbone('gone.pth')
    net.init_cfg['prefix'] = 'backbone.'
    with pytest.raises(UserError, match=r'model\.init_cfg\.checkpoint: .*prefix'):
        check_pretrained(net)
