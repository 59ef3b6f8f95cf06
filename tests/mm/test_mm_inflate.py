"""mmaction2's backbones start from 2D checkpoints with their norms as they are (`pretrained=`)."""

import json
import re

import pytest
import torch

from normplug import NORMS
from normplug.checkpoints import convert, read
from normplug.errors import UserError
from normplug.preflight.pretrained import check_pretrained
from tests.checkpoints.networks import released_state
from tests.mm.norm_layers import all_types, build, image, norm_layers, own_layers, randomize, resnet

pytest.importorskip('mmaction')
pytest.importorskip('mmdet')

STATIC = dict(inflate=(0, 0, 0, 0), conv1_kernel=(1, 7, 7), with_pool2=False)


def trained_2d(norm_cfg, channels=8):
    """mmdet's ResNet, in no state that a fresh one has: parameters, statistics, counts."""
    net = randomize(resnet(norm_cfg, base_channels=channels, stem_channels=channels))
    generator = torch.Generator().manual_seed(0)
    for name, buffer in net.named_buffers():
        if name.endswith('num_batches_tracked'):
            buffer.fill_(7)
        elif name.endswith('running_mean'):
            buffer.copy_(torch.randn(buffer.shape, generator=generator))
        elif name.endswith('running_var'):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    net.eval()
    return net


def saved(state, tmp_path):
    torch.save(state, tmp_path / '2d.pth')
    return str(tmp_path / '2d.pth')


def video_net(norm_cfg, kind='ResNet3d', **options):
    net = build({'type': kind, 'depth': 18, 'norm_cfg': norm_cfg, **options}, 'mmaction')
    net.init_weights()
    net.eval()
    return net


def i3d(norm_cfg, **options):
    return video_net(norm_cfg, base_channels=8, **options)


def twin(name):
    """Name of a norm in torchvision's ResNet → in mmaction2's networks of ConvModules."""
    name = name.replace('downsample.1', 'downsample.bn')
    return re.sub(r'bn(\d)$', r'conv\1.bn', name)


def assert_same_norms(flat, deep):
    """All tensors of all norms are equal, whichever parameters or buffers they are."""
    flat, deep = own_layers(flat), own_layers(deep)
    assert {twin(name) for name in flat} == deep.keys()
    for name, layer in flat.items():
        got = deep[twin(name)].state_dict()
        assert got.keys() == layer.state_dict().keys()
        for key, value in layer.state_dict().items():
            assert torch.equal(got[key], value), f'{name}.{key}'


@pytest.mark.parametrize('prefix', ['', 'backbone.'], ids=['backbone', 'classifier'])
@all_types
def test_a_3d_network_is_its_2d_one_on_a_still_video(norm_type, prefix, tmp_path):
    cfg = {'type': norm_type}
    flat = trained_2d(cfg)
    state = {prefix + name: value for name, value in flat.state_dict().items()}
    path = saved({'state_dict': state | {'head.fc.bias': torch.ones(3)}}, tmp_path)
    deep = i3d(cfg, pretrained=path, **STATIC)
    assert_same_norms(flat, deep)
    if prefix:
        return
    x = image(size=32)
    still = x[:, :, None].expand(-1, -1, 3, -1, -1)
    with torch.no_grad():
        want = flat(x)[-1]
        torch.testing.assert_close(deep(still)[:, :, 1], want, rtol=1e-4, atol=1e-4)


@all_types
def test_frozen_layers_are_filled_too(norm_type, tmp_path):
    flat = trained_2d({'type': norm_type})
    path = saved(flat.state_dict(), tmp_path)
    assert_same_norms(flat, i3d({'type': norm_type, 'frozen': True}, pretrained=path))


def test_kernels_in_time_share_the_2d_weights(tmp_path):
    flat = trained_2d({'type': 'SN'})
    deep = i3d({'type': 'SN'}, pretrained=saved(flat.state_dict(), tmp_path))
    assert deep.layer2[0].conv1.conv.weight.shape[2] == 3
    summed = deep.layer2[0].conv1.conv.weight.sum(2)
    torch.testing.assert_close(summed, flat.layer2[0].conv1.weight)
    assert_same_norms(flat, deep)


@pytest.mark.filterwarnings('always:.*checkpoint of another normalizer')
@all_types
def test_a_batch_norm_checkpoint_fills_what_a_batch_norm_has(norm_type, tmp_path):
    """Ratios start as in a fresh layer, with the warning that a 2D layer gives."""
    flat = trained_2d({'type': 'BN'})
    path = saved(flat.state_dict(), tmp_path)
    fresh = NORMS[norm_type](8).state_dict()
    own = NORMS[norm_type](8).own_names()
    if own:
        with pytest.warns(UserWarning, match='loaded from the checkpoint of another normalizer'):
            deep = i3d({'type': norm_type}, pretrained=path)
    else:
        deep = i3d({'type': norm_type}, pretrained=path)
    if norm_type == 'MABN':  # the same function, of other numbers
        x = torch.randn(2, 64, 3, 4)[:, : flat.bn1.num_features]
        want = flat.bn1.eval()(x)
        torch.testing.assert_close(deep.conv1.bn.eval()(x.unsqueeze(2)).squeeze(2), want)
        return
    got, want = deep.conv1.bn.state_dict(), flat.bn1.state_dict()
    for key, value in got.items():
        if key in want and value.shape == want[key].shape:
            assert torch.equal(value, want[key]), key
        elif key not in want:
            assert torch.equal(value, fresh[key]), key


@pytest.mark.parametrize('kind', ['ResNet', 'ResNetTSM'])
@pytest.mark.parametrize('norm_type', ['SN', 'KN', 'SW', 'GhostBN'])
def test_2d_networks_of_mmaction(kind, norm_type, tmp_path):
    cfg = {'type': norm_type}
    flat = trained_2d(cfg, channels=64)
    path = saved(flat.state_dict(), tmp_path)
    options = dict(num_segments=2) if kind == 'ResNetTSM' else {}
    net = video_net(cfg, kind, pretrained=path, **options)
    assert_same_norms(flat, net)


def test_group_norms(tmp_path):
    """mm calls them gn1, a ConvModule gn; mmaction2 looks for bn at both."""
    cfg = {'type': 'GN', 'num_groups': 4}
    flat = trained_2d(cfg)
    deep = i3d(cfg, pretrained=saved(flat.state_dict(), tmp_path), **STATIC)
    assert not any('.bn.' in name for name in deep.state_dict())
    assert set(norm_layers(deep).values()) == {'GroupNorm'}
    x = image(size=32)
    with torch.no_grad():
        got = deep(x[:, :, None].expand(-1, -1, 3, -1, -1))[:, :, 1]
        torch.testing.assert_close(got, flat(x)[-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('norm_type', ['SN', 'GN'])
def test_a_start_from_nothing_zeroes_the_last_norm_of_each_block(norm_type):
    cfg = {'type': norm_type} | ({'num_groups': 4} if norm_type == 'GN' else {})
    deep = i3d(cfg)
    assert not any(deep.layer1[0].conv2.norm.weight)
    assert all(deep.layer1[0].conv1.norm.weight == 1)


def test_the_slow_path_of_slowfast_leaves_its_lateral_norms(tmp_path):
    flat = trained_2d({'type': 'SN'}, channels=64)
    path = saved(flat.state_dict(), tmp_path)
    paths = dict(type='resnet3d', depth=18, norm_cfg=dict(type='SN'), conv1_kernel=(1, 7, 7))
    net = build(
        dict(
            type='ResNet3dSlowFast',
            pretrained=None,
            slow_pathway=dict(paths, lateral=True, lateral_norm=True, pretrained=path),
            fast_pathway=dict(paths, lateral=False, base_channels=8, pretrained=None),
        ),
        'mmaction',
    )
    net.init_weights()
    slow, want = own_layers(net.slow_path), own_layers(flat)
    lateral = {name for name in slow if 'lateral' in name}
    assert lateral
    # The first block has a shortcut of its own: its input is as wide as both paths.
    assert slow.keys() - lateral - {twin(name) for name in want} == {'layer1.0.downsample.bn'}
    for name, layer in want.items():
        for key, value in layer.state_dict().items():
            assert torch.equal(slow[twin(name)].state_dict()[key], value), f'{name}.{key}'
    for name in lateral:
        assert torch.equal(slow[name].mean_weight, torch.ones(3)), name


@pytest.mark.filterwarnings('always:.*not loaded')
def test_layers_of_another_width_keep_their_start_with_a_warning(tmp_path):
    """As those of a batch norm do in mmaction2."""
    path = saved(trained_2d({'type': 'SN'}, channels=16).state_dict(), tmp_path)
    with pytest.warns(UserWarning, match='bn1 of the 2D checkpoint has 16 channels, its layer 8'):
        deep = i3d({'type': 'SN'}, pretrained=path)
    for key, value in deep.conv1.bn.state_dict().items():
        assert torch.equal(value, NORMS['SN'](8).state_dict()[key]), key


@pytest.mark.filterwarnings('ignore:.*checkpoint of another normalizer')
@pytest.mark.parametrize('kind', ['ResNet', 'ResNetTSM'])
def test_2d_networks_start_from_batch_norms(kind, tmp_path):
    flat = trained_2d({'type': 'BN'}, channels=64)
    options = dict(num_segments=2) if kind == 'ResNetTSM' else {}
    path = saved(flat.state_dict(), tmp_path)
    net = own_layers(video_net({'type': 'SN'}, kind, pretrained=path, **options))
    for name in norm_layers(flat):
        want, got = flat.get_submodule(name), net[twin(name)]
        for key in ('weight', 'bias', 'running_mean', 'running_var'):
            assert torch.equal(getattr(got, key), getattr(want, key)), f'{name}.{key}'
        assert torch.equal(got.mean_weight, torch.ones(3)), name


def test_group_norms_of_x3d_and_tsn(tmp_path):
    cfg = {'type': 'GN', 'num_groups': 1}
    x3d = build(dict(type='X3D', gamma_w=1, gamma_b=1, gamma_d=1, norm_cfg=cfg), 'mmaction')
    x3d.init_weights()
    assert not any(x3d.layer1[0].conv3.norm.weight)
    flat = trained_2d(cfg, channels=64)
    net = video_net(cfg, 'ResNet', pretrained=saved(flat.state_dict(), tmp_path))
    assert torch.equal(net.conv1.norm.weight, flat.gn1.weight)


@pytest.mark.parametrize('prefix', [None, 'backbone.'], ids=['backbone', 'classifier'])
@all_types
def test_init_cfg_is_as_pretrained(norm_type, prefix, tmp_path):
    flat = trained_2d({'type': norm_type})
    state = {(prefix or '') + name: value for name, value in flat.state_dict().items()}
    init_cfg = {'type': 'Pretrained', 'checkpoint': saved(state, tmp_path)}
    deep = i3d({'type': norm_type}, init_cfg=init_cfg | ({'prefix': prefix} if prefix else {}))
    assert_same_norms(flat, deep)
    summed = deep.layer2[0].conv1.conv.weight.sum(2)
    torch.testing.assert_close(summed, flat.layer2[0].conv1.weight)


RELEASED = {'sn': {'type': 'SN', 'released_statistics': True}, 'ssn': {'type': 'SSN'}}


@pytest.mark.parametrize('kind', [*RELEASED, 'ibn_a'])
def test_init_cfg_takes_released_files(kind, tmp_path):
    torch.save({'state_dict': released_state(kind, 18)}, tmp_path / 'released.pth')
    init_cfg = {'type': 'ReleasedPretrained', 'checkpoint': str(tmp_path / 'released.pth')}
    net = dict(type='ResNet3d', depth=18, base_channels=4, init_cfg=init_cfg)
    if kind == 'ibn_a':
        where = dict(where='layer[1-3].*.conv1.bn', norm_cfg=dict(type='IBN'))
        net |= dict(type='NormPlacement', model_type='ResNet3d', norms=[where])
    else:
        net['norm_cfg'] = RELEASED[kind]
    net = build(net, 'mmaction')
    (text,) = check_pretrained(net)
    assert text.startswith(f'model.init_cfg.checkpoint {tmp_path}/released.pth: ')
    net.init_weights()
    want = convert(read(str(tmp_path / 'released.pth')), 'backbone').state
    norms = {name.rpartition('.')[0] for name in want if re.search(r'bn\d\.|downsample\.1\.', name)}
    assert len(norms) == 20
    for name in norms:
        for key, value in net.get_submodule(twin(name)).state_dict().items():
            if key != 'num_batches_tracked':
                assert torch.equal(value, want[f'{name}.{key}']), f'{name}.{key}'
    summed = net.layer1[0].conv1.conv.weight.sum(2)
    torch.testing.assert_close(summed, want['layer1.0.conv1.weight'])


def refused_by_the_check(net, message):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(UserError) as told:
        check_pretrained(net)
    assert message in str(told.value)
    assert str(told.value).startswith('model.')
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_what_does_not_fill_the_network_is_refused(tmp_path):
    def net(channels=8, depth=18, **options):
        cfg = dict(type='ResNet3d', depth=depth, base_channels=channels)
        return build(cfg | dict(norm_cfg=dict(type='SN')) | options, 'mmaction')

    path = saved(trained_2d({'type': 'SN'}).state_dict(), tmp_path)
    init_cfg = {'type': 'Pretrained', 'checkpoint': path}
    (text,) = check_pretrained(net(init_cfg=init_cfg))
    assert text == f'model.init_cfg.checkpoint {path}: 140 of 140 tensors used'
    assert len(check_pretrained(net(pretrained=path))) == 1
    other = 'it must be of a 2D ResNet of the same depth, width and norm_cfg'
    refused_by_the_check(net(channels=4, init_cfg=init_cfg), other)
    refused_by_the_check(net(channels=4, pretrained=path), other)
    refused_by_the_check(net(init_cfg=init_cfg | {'prefix': 'encoder.'}), "prefix='encoder.'")
    refused_by_the_check(net(init_cfg=init_cfg, pretrained=path), 'set one of them to None')
    refused_by_the_check(net(init_cfg=[init_cfg, dict(type='Kaiming')]), 'keep that entry alone')
    of_classifier = init_cfg | {'prefix': 'backbone.'}
    refused_by_the_check(net(init_cfg=of_classifier, pretrained2d=False), 'a file of its own')
    torch.save({'state_dict': released_state('sn', 18)}, path)
    released = {'type': 'ReleasedPretrained', 'checkpoint': path}
    refused_by_the_check(net(4, init_cfg=released, pretrained2d=False), 'set pretrained2d=True')
    # Most of a deeper network would be left at random.
    refused_by_the_check(net(4, depth=34, init_cfg=released), 'tensors of the network as they are')
    released['checkpoint'] = str(tmp_path / 'gone.pth')
    refused_by_the_check(net(4, init_cfg=released), 'gone.pth')


@pytest.mark.parametrize('named_by', ['init_cfg', 'a list', 'pretrained'])
def test_ratios_that_a_checkpoint_does_not_have_are_reported(named_by, tmp_path):
    path = saved(trained_2d({'type': 'BN'}).state_dict(), tmp_path)
    init_cfg = {'type': 'Pretrained', 'checkpoint': path}
    net = dict(type='ResNet3d', depth=18, base_channels=8, norm_cfg=dict(type='SN'))
    if named_by == 'pretrained':
        net['pretrained'] = path
    else:
        net['init_cfg'] = init_cfg if named_by == 'init_cfg' else [init_cfg]
    with pytest.warns(UserWarning, match='checkpoint of another normalizer'):
        (text,) = check_pretrained(build(net, 'mmaction'))
    assert '100 of 140 tensors used' in text
    assert 'conv1.bn.mean_weight' in text


@pytest.mark.parametrize('named_by', ['init_cfg', 'pretrained'])
def test_a_pretraining_on_other_digits_is_told(named_by, tmp_path):
    made = {'format': 'classification', 'version': 1, 'seed': 0, 'scene': {'light': {}}}
    state = trained_2d({'type': 'SN'}).state_dict()
    path = saved({'state_dict': state, 'meta': {'digits': made}}, tmp_path)
    named = {'init_cfg': {'type': 'Pretrained', 'checkpoint': path}, 'pretrained': path}
    net = build(
        dict(type='ResNet3d', depth=18, base_channels=8, norm_cfg=dict(type='SN'))
        | {named_by: named[named_by]},
        'mmaction',
    )
    for seed, told in ((0, False), (3, True)):
        (tmp_path / 'digits.json').write_text(json.dumps(made | {'seed': seed}))
        (text,) = check_pretrained(net, {'data_root': str(tmp_path)})
        assert ('seed 0, not 3' in text) == told
