"""Contract, point 3: what mm does to batch norms by ``isinstance`` leaves our layers alone."""

import copy

import pytest
import torch
from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
from mmengine.model.efficient_conv_bn_eval import turn_on_efficient_conv_bn_eval
from mmengine.optim import build_optim_wrapper
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from normplug import NORMS
from tests.mm.norm_layers import (
    all_scopes,
    all_types,
    has_counted,
    image,
    norm_layers,
    own_layers,
    randomize,
    resnet,
    two_types,
)

cnn = pytest.importorskip('mmcv.cnn')
ConvModule, build_norm_layer = cnn.ConvModule, cnn.build_norm_layer
fuse_conv_bn, is_norm = cnn.fuse_conv_bn, cnn.is_norm


@all_types
def test_it_is_no_batch_norm(norm_type):
    assert not issubclass(NORMS[norm_type], (_BatchNorm, nn.SyncBatchNorm))
    assert not is_norm(NORMS[norm_type](4))


def network(norm_type, **options):
    """A ResNet with random norm parameters and running statistics of its own activations."""
    net = randomize(resnet({'type': norm_type}, norm_eval=False, **options))
    with torch.no_grad():
        net(image(4))
    net.eval()
    return net


@torch.no_grad()
def features(net):
    return net(image())[-1]


def test_fuse_conv_bn_folds_batch_norms():
    assert norm_layers(fuse_conv_bn(network('BN'))) == {}


@all_types
def test_fuse_conv_bn_leaves_ours_alone(norm_type):
    net = network(norm_type)
    before, layers = features(net), own_layers(net)
    fused = fuse_conv_bn(net)
    assert own_layers(fused) == layers
    assert torch.equal(features(fused), before)


@all_types
def test_fuse_conv_bn_folds_batch_norms_beside_ours(norm_type):
    net = nn.Sequential(
        ConvModule(3, 4, 3, norm_cfg={'type': norm_type}),
        ConvModule(4, 4, 3, norm_cfg={'type': 'BN'}),
    ).eval()
    with torch.no_grad():
        before = net(image())
        fused = fuse_conv_bn(net)
        assert norm_layers(fused) == {'0.bn': norm_type}
        torch.testing.assert_close(fused(image()), before)


@two_types
@pytest.mark.parametrize('convert', [convert_sync_batchnorm, revert_sync_batchnorm])
def test_conversions_of_sync_batch_norm_leave_ours_alone(norm_type, convert):
    net = network(norm_type)
    before, layers = features(net), own_layers(net)
    converted = convert(net)
    assert own_layers(converted) == layers
    assert torch.equal(features(converted), before)


def test_convert_sync_batchnorm_takes_batch_norms():
    assert set(norm_layers(convert_sync_batchnorm(network('BN'))).values()) == {'SyncBatchNorm'}


@all_types
def test_efficient_conv_bn_eval_of_a_conv_module_leaves_ours_alone(norm_type):
    module = ConvModule(3, 4, 3, norm_cfg={'type': norm_type}, efficient_conv_bn_eval=True).eval()
    assert module.efficient_conv_bn_eval_forward is None
    plain = ConvModule(3, 4, 3, norm_cfg={'type': norm_type}).eval()
    plain.load_state_dict(module.state_dict())
    with torch.no_grad():
        assert torch.equal(module(image()), plain(image()))


@two_types
def test_efficient_conv_bn_eval_of_a_model_leaves_ours_alone(norm_type):
    model = nn.ModuleDict({'backbone': network(norm_type)})
    before = features(model['backbone'])
    turn_on_efficient_conv_bn_eval(model, 'backbone')  # the `efficient_conv_bn_eval` of a config
    assert torch.equal(features(model['backbone']), before)


@all_scopes
@two_types
def test_norm_eval_does_not_touch_ours(norm_type, scope):
    net = resnet({'type': norm_type}, scope, norm_eval=True, frozen_stages=-1)
    net.train()
    net(image())
    for name, layer in own_layers(net).items():
        assert layer.training, name
        assert has_counted(layer, 1), name


@all_scopes
def test_norm_eval_stops_batch_norms(scope):
    net = resnet({'type': 'BN'}, scope, norm_eval=True, frozen_stages=-1)
    net.train()
    assert not any(net.get_submodule(name).training for name in norm_layers(net))


# frozen=True, our own freezing: survives everything that mm does to a model.


@all_types
def test_frozen_survives_the_requires_grad_loop_of_build_norm_layer(norm_type):
    _, layer = build_norm_layer({'type': norm_type, 'frozen': True, 'requires_grad': True}, 4)
    assert list(layer.parameters()) == []
    assert layer.weight.shape == (4,)


@all_types
def test_frozen_survives_an_optimizer_and_train(norm_type):
    net = randomize(resnet({'type': norm_type, 'frozen': True}, norm_eval=False))
    for parameter in net.parameters():
        parameter.requires_grad = True
    optim = build_optim_wrapper(
        net, {'optimizer': {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9, 'weight_decay': 0.1}}
    )
    before = {name: copy.deepcopy(layer.state_dict()) for name, layer in own_layers(net).items()}
    stem = net.conv1.weight.detach().clone()
    net.train()
    assert all(layer.training for layer in own_layers(net).values())
    for seed in range(2):
        optim.update_params(net(image(seed=seed))[-1].square().mean())
    for name, layer in own_layers(net).items():
        for key, value in before[name].items():
            assert torch.equal(getattr(layer, key), value), f'{name}.{key}'
    assert not torch.equal(net.conv1.weight, stem)  # gradients pass through


@all_types
def test_frozen_computes_in_training_what_it_computes_in_evaluation(norm_type):
    layer = NORMS[norm_type](8, frozen=True)
    layer.load_state_dict(network(norm_type).bn1.state_dict())
    x = torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    in_training = layer.train()(x)
    assert torch.equal(layer.eval()(x), in_training)


@all_types
def test_weight_decay_is_under_the_users_control(norm_type):
    """``norm_decay_mult`` knows torch's own classes only; ``flat_decay_mult`` reaches ours."""
    net = resnet({'type': norm_type})
    optim = build_optim_wrapper(
        net,
        {
            'optimizer': {'type': 'SGD', 'lr': 0.1, 'weight_decay': 0.1},
            'paramwise_cfg': {'flat_decay_mult': 0.0},
        },
    )
    decay = {p: g['weight_decay'] for g in optim.optimizer.param_groups for p in g['params']}
    for name, layer in own_layers(net).items():
        for parameter in layer.parameters():
            assert decay[parameter] == 0, name
    assert decay[net.conv1.weight] == 0.1
