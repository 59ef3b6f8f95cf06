"""Contract, points 1 and 2: where the types are registered, how layers are built and named."""

import mmengine.registry
import pytest
import torch
from mmengine.registry import DefaultScope

from normplug import NORMS
from normplug.models import CenConv2d
from normplug.register import register
from tests.mm.norm_layers import (
    all_types,
    norm_layers,
    of_batch_norm,
    resnet,
)

cnn = pytest.importorskip('mmcv.cnn')
ConvModule, build_norm_layer = cnn.ConvModule, cnn.build_norm_layer
infer_abbr = cnn.bricks.norm.infer_abbr


@all_types
def test_the_type_is_in_the_root_registry_and_registering_again_is_harmless(norm_type):
    register()
    root = mmengine.registry.MODELS
    assert root.module_dict[norm_type] is NORMS[norm_type]
    for scope, child in root.children.items():
        assert norm_type not in child.module_dict, f'registered in {scope} too'


@pytest.mark.parametrize('scope', ['mmengine', 'mmdet', 'mmseg', 'mmpretrain', 'mmaction'])
@all_types
def test_the_bare_type_name_builds_in_every_scope(norm_type, scope):
    with DefaultScope.overwrite_default_scope(scope):
        _, layer = build_norm_layer({'type': norm_type}, 6)
    assert type(layer) is NORMS[norm_type]


@all_types
def test_build_norm_layer_sets_channels_and_eps(norm_type):
    _, layer = build_norm_layer({'type': norm_type}, 6)
    assert (layer.num_features, layer.eps) == (6, 1e-5)
    _, layer = build_norm_layer({'type': norm_type, 'eps': 1e-3, 'momentum': 0.01}, 6)
    assert (layer.eps, layer.momentum) == (1e-3, 0.01)


@all_types
def test_requires_grad_false_stops_all_its_parameters(norm_type):
    _, layer = build_norm_layer({'type': norm_type, 'requires_grad': False}, 6)
    assert list(layer.parameters())
    assert not any(p.requires_grad for p in layer.parameters())


@all_types
def test_an_option_that_does_not_exist_is_refused_by_name(norm_type):
    with pytest.raises(TypeError, match='ratios'):
        build_norm_layer({'type': norm_type, 'ratios': 32}, 64)


@all_types
def test_the_layer_is_named_as_a_batch_norm(norm_type):
    assert infer_abbr(NORMS[norm_type]) == 'bn'
    assert build_norm_layer({'type': norm_type}, 4, postfix=1)[0] == 'bn1'
    module = ConvModule(3, 4, 1, norm_cfg={'type': norm_type})
    assert norm_layers(module) == {'bn': norm_type}
    assert module.norm is module.bn


def test_mabn_after_a_centred_convolution():
    block = ConvModule(
        3, 4, 3, conv_cfg=dict(type='CenConv'), norm_cfg=dict(type='MABN', window=2, warmup=1)
    )
    assert (type(block.conv), type(block.norm)) == (CenConv2d, NORMS['MABN'])
    assert not torch.isnan(block(torch.randn(1, 3, 6, 6))).any()


# Every type in one network, and every network with one type.
NETWORKS = [(norm_type, 'mmdet', 'ResNet') for norm_type in sorted(NORMS)] + [
    ('SN', 'mmdet', 'ResNetV1d'),
    ('SN', 'mmseg', 'ResNet'),
    ('SN', 'mmseg', 'ResNetV1c'),
    ('SN', 'mmpretrain', 'ResNet'),
    ('SN', 'mmpretrain', 'ResNetV1c'),
]


@pytest.mark.parametrize(('norm_type', 'scope', 'variant'), NETWORKS)
def test_parameter_paths_are_those_of_a_batch_norm_network(norm_type, scope, variant):
    ours = resnet({'type': norm_type}, scope, type=variant)
    theirs = resnet({'type': 'BN'}, scope, type=variant)
    assert set(norm_layers(ours).values()) == {norm_type}
    assert norm_layers(ours).keys() == norm_layers(theirs).keys()
    ours, theirs = ours.state_dict(), theirs.state_dict()
    assert of_batch_norm(theirs, norm_type) <= ours.keys()
    for name in theirs:
        if name.endswith(('.weight', '.bias')):
            assert ours[name].shape == theirs[name].shape, name
