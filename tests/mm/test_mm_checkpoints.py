"""Contract, point 2: checkpoints of batch norm networks and of the released code."""

import re
import warnings

import pytest
import torch
from mmengine.runner import load_checkpoint
from torch import nn

from normplug import IBN, NORMS, SN
from tests.mm.norm_layers import (
    all_types,
    assert_unchanged,
    image,
    norm_layers,
    own_layers,
    randomize,
    resnet,
)


def trained_bn_resnet() -> nn.Module:
    """A BN ResNet with random affine parameters and the statistics of its own activations."""
    net = randomize(resnet({'type': 'BN', 'momentum': None}, norm_eval=False))
    with torch.no_grad():
        for seed in range(4):
            net(image(4, seed=seed))
    net.eval()
    return net


@pytest.fixture(scope='module')
def bn_net():
    return trained_bn_resnet()


@pytest.fixture
def bn_file(bn_net, tmp_path):
    torch.save({'state_dict': bn_net.state_dict(), 'meta': {}}, tmp_path / 'bn.pth')
    return str(tmp_path / 'bn.pth')


@pytest.fixture
def quiet():
    """Any warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


def assert_loaded(net, state):
    """Every weight and bias of ``state`` is in the network."""
    ours = net.state_dict()
    for name, value in state.items():
        if name.endswith(('.weight', '.bias')):
            assert torch.equal(ours[name], value), name


def test_bn_checkpoint_loads_into_sn_by_name_and_loudly(bn_net, bn_file):
    net = resnet({'type': 'SN'})
    with pytest.warns(UserWarning, match=r"ratios keep their initial values.*logit_init='bn'"):
        load_checkpoint(net, bn_file, map_location='cpu')
    assert_loaded(net, bn_net.state_dict())
    assert_unchanged(net, dict(bn_net.named_buffers()))  # running statistics too
    for layer in own_layers(net).values():
        assert torch.equal(layer.mean_weight, torch.ones(3))


def test_logit_init_bn_keeps_the_features_of_a_batch_norm_network(bn_net, bn_file):
    def error(logit_init):
        net = resnet({'type': 'SN', 'logit_init': logit_init})
        with pytest.warns(UserWarning, match='logit_init'):
            load_checkpoint(net, bn_file, map_location='cpu')
        net.eval()
        with torch.no_grad():
            got, want = net(image())[-1], bn_net(image())[-1]
        return ((got - want).norm() / want.norm()).item()

    # Each of 20 layers mixes in half a per cent of other statistics.
    assert error('bn') < 0.05
    assert error('uniform') > 5 * error('bn')


@all_types
def test_own_checkpoint_loads_strictly_and_without_warning(norm_type, tmp_path, quiet):
    net = randomize(resnet({'type': norm_type}, norm_eval=False))
    net(image())
    torch.save(net.state_dict(), tmp_path / 'own.pth')
    other = resnet({'type': norm_type})
    load_checkpoint(other, str(tmp_path / 'own.pth'), map_location='cpu', strict=True)
    net.eval()
    other.eval()
    with torch.no_grad():
        assert torch.equal(other(image())[-1], net(image())[-1])


@all_types
def test_a_wrong_number_of_channels_is_an_error_by_name(norm_type):
    layer = NORMS[norm_type](4)
    state = {name: t.clone() for name, t in NORMS[norm_type](6).state_dict().items()}
    with pytest.raises(RuntimeError, match='size mismatch for weight'):
        layer.load_state_dict(state)


# What the released layers save. SN: all four-dimensional parameters, no count of batches.


def released_sn(channels=4, logits=3, dims=2):
    ones = (1,) * dims
    generator = torch.Generator().manual_seed(0)
    state = {
        'weight': torch.randn(1, channels, *ones, generator=generator),
        'bias': torch.randn(1, channels, *ones, generator=generator),
        'mean_weight': torch.randn(logits, generator=generator),
        'var_weight': torch.randn(logits, generator=generator),
    }
    if logits == 3:
        state['running_mean'] = torch.randn(1, channels, *ones[1:], generator=generator)
        state['running_var'] = torch.rand(1, channels, *ones[1:], generator=generator)
    return state


@pytest.mark.parametrize('channels', [1, 4])
@pytest.mark.parametrize('dims', [0, 2, 3])
@pytest.mark.parametrize('logits', [2, 3])
def test_released_sn_loads_strictly(channels, dims, logits, quiet):
    layer = SN(channels, using_bn=logits == 3)
    state = released_sn(channels, logits, dims)
    layer.load_state_dict(state)
    for name, value in state.items():
        assert torch.equal(getattr(layer, name), value.flatten()), name


def test_released_sn_loads_strictly_through_mmengine(tmp_path, quiet):
    torch.save({f'bn1.{name}': t for name, t in released_sn().items()}, tmp_path / 'sn.pth')
    net = nn.Sequential()
    net.add_module('bn1', SN(4))
    load_checkpoint(net, str(tmp_path / 'sn.pth'), strict=True)
    assert torch.equal(net.bn1.weight, released_sn()['weight'].flatten())


def test_released_sn_of_two_normalizers_does_not_fit_three():
    with pytest.raises(RuntimeError, match='size mismatch for mean_weight'):
        SN(4).load_state_dict(released_sn(logits=2))


def test_keys_that_the_checkpoint_lacks_are_not_reported_as_unexpected():
    state = {**released_sn(logits=2), 'running_mean': torch.ones(1, 4, 1)}
    result = SN(4, using_bn=False).load_state_dict(state, strict=False)
    assert result.unexpected_keys == ['running_mean']


def released_ibn(channels=8, half=4):
    generator = torch.Generator().manual_seed(0)
    rest = channels - half
    return {
        'IN.weight': torch.randn(half, generator=generator),
        'IN.bias': torch.randn(half, generator=generator),
        'BN.weight': torch.randn(rest, generator=generator),
        'BN.bias': torch.randn(rest, generator=generator),
        'BN.running_mean': torch.randn(rest, generator=generator),
        'BN.running_var': torch.rand(rest, generator=generator),
        'BN.num_batches_tracked': torch.tensor(7),
    }


def assert_ibn_holds(layer, state):
    assert torch.equal(layer.weight, torch.cat([state['IN.weight'], state['BN.weight']]))
    assert torch.equal(layer.bias, torch.cat([state['IN.bias'], state['BN.bias']]))
    assert torch.equal(layer.running_mean, state['BN.running_mean'])
    assert torch.equal(layer.running_var, state['BN.running_var'])
    assert layer.num_batches_tracked == 7


@pytest.mark.parametrize(('channels', 'half', 'ratio'), [(8, 4, 0.5), (8, 2, 0.25), (7, 3, 0.5)])
def test_released_ibn_loads_strictly(channels, half, ratio, quiet):
    layer = IBN(channels, ratio=ratio)
    layer.load_state_dict(released_ibn(channels, half))
    assert_ibn_holds(layer, released_ibn(channels, half))


def test_released_ibn_loads_strictly_through_mmengine(tmp_path, quiet):
    net = nn.Sequential()
    net.add_module('layer1', nn.Sequential())
    net.layer1.add_module('bn1', IBN(8))
    state = {f'layer1.bn1.{name}': value for name, value in released_ibn().items()}
    torch.save(state, tmp_path / 'ibn.pth')
    load_checkpoint(net, str(tmp_path / 'ibn.pth'), strict=True)
    assert_ibn_holds(net.layer1.bn1, released_ibn())


def test_released_ibn_of_another_ratio_is_an_error_by_name():
    with pytest.raises(RuntimeError, match='size mismatch for running_mean'):
        IBN(8, ratio=0.25).load_state_dict(released_ibn(8, 4))


@pytest.mark.filterwarnings('ignore:IBN layers are loaded')
@pytest.mark.parametrize(
    ('layer', 'state'),
    [(SN(4), released_sn()), (IBN(8), released_ibn()), (IBN(8), nn.BatchNorm2d(8).state_dict())],
    ids=['sn', 'ibn', 'bn into ibn'],
)
def test_loading_leaves_the_callers_state_dict_alone(layer, state):
    shapes = {name: value.shape for name, value in state.items()}
    layer.load_state_dict(state)
    assert {name: value.shape for name, value in state.items()} == shapes


def test_half_of_a_released_ibn_is_an_error():
    state = released_ibn()
    del state['IN.weight']
    with pytest.raises(RuntimeError, match=r'(?s)Missing.*"weight"'):
        IBN(8).load_state_dict(state)


def test_bn_checkpoint_loads_into_ibn_by_name_and_loudly(bn_net, bn_file):
    net = resnet({'type': 'IBN'})
    with pytest.warns(UserWarning, match='IBN layers are loaded from the checkpoint of another'):
        load_checkpoint(net, bn_file, map_location='cpu', strict=True)
    assert_loaded(net, bn_net.state_dict())
    theirs = dict(bn_net.named_modules())
    for name, layer in own_layers(net).items():
        half = layer.num_features // 2
        assert torch.equal(layer.running_mean, theirs[name].running_mean[half:]), name
        assert torch.equal(layer.running_var, theirs[name].running_var[half:]), name
        assert layer.num_batches_tracked == 4
    assert set(norm_layers(net).values()) == {'IBN'}


def test_the_batch_norm_channels_of_ibn_give_the_batch_norms_output(bn_net):
    bn = bn_net.bn1
    layer = IBN(8).eval()
    with pytest.warns(UserWarning, match='instance norm'):
        layer.load_state_dict(bn.state_dict())
    x = torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(layer(x)[:, 4:], bn(x)[:, 4:])


def test_the_warning_names_the_layer_type_once_for_a_whole_network(bn_file):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('default')
        load_checkpoint(resnet({'type': 'SN'}), bn_file, map_location='cpu')
    ours = [str(w.message) for w in caught if re.match('SN layers are loaded', str(w.message))]
    assert len(ours) == 1
