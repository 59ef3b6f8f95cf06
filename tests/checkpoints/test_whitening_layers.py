"""SW, IterNorm and GW from a batch norm network, from their releases, and back."""

import copy

import pytest
import torch

from normplug.checkpoints import CheckpointError, convert
from normplug.checkpoints.source import Source
from normplug.norms import GW, SW, IterNorm
from tests.checkpoints.networks import assert_same_tensors, classifier, convert_tool
from tests.checkpoints.test_convert_config import detector  # noqa: F401
from tests.checkpoints.test_warm_start import converted, features, loaded, off, trained
from tests.mm.norm_layers import own_layers, resnet


def test_batch_norm_to_iternorm_evaluates_to_the_same():
    bn = trained({'type': 'BN'})
    conversion = converted(bn, norm='IterNorm')
    net = loaded(conversion, {'type': 'IterNorm'})
    assert off(features(net), features(bn)) < 1e-5
    assert net.bn1.num_batches_tracked == bn.bn1.num_batches_tracked == 3
    assert conversion.report.norms == {'BN → IterNorm': 20}
    assert conversion.report.anew == conversion.report.unused == []


def test_batch_norm_to_sw():
    bn = trained({'type': 'BN'})
    net = loaded(converted(bn, norm='SW'), {'type': 'SW'})
    for name, layer in own_layers(net).items():
        theirs = bn.get_submodule(name)
        for part in ('weight', 'bias', 'running_mean', 'num_batches_tracked'):
            assert torch.equal(getattr(layer, part), getattr(theirs, part)), f'{name}.{part}'
        blocks = theirs.running_var.view(-1, layer.size)
        assert torch.equal(layer.running_cov, torch.stack([block.diag() for block in blocks]))
        assert layer.ratios()[1].tolist() == [0.5, 0.5]


def test_batch_norm_to_gw():
    bn = trained({'type': 'BN'})
    conversion = converted(bn, norm='GW')
    net = loaded(conversion, {'type': 'GW'})
    assert torch.equal(net.layer1[0].bn1.weight, bn.layer1[0].bn1.weight)
    assert torch.equal(net.layer1[0].bn1.bias, bn.layer1[0].bn1.bias)
    names = {name for name in bn.state_dict() if 'running' in name or 'tracked' in name}
    assert set(conversion.report.unused) == names


def test_channels_that_the_blocks_do_not_divide():
    bn = resnet({'type': 'BN'}, base_channels=12)
    with pytest.raises(
        CheckpointError, match=r'layer layer2.* 24 channels: .*num_pergroup=16 does'
    ):
        converted(bn, norm='SW')


SW_CFG = "type='SyncSW', num_pergroup=4, sw_type=3, tie_weight=True"


def test_options_are_those_of_the_config(detector, tmp_path):  # noqa: F811
    _, bn = detector('bn', 'BN')
    config, _ = detector('ours', 'SyncSW')
    config.write_text(config.read_text().replace("type='SyncSW'", SW_CFG))
    torch.save(bn.state_dict(), tmp_path / 'bn.pth')
    for norm in ((), ('--norm', 'SW')):
        out = tmp_path / f'{len(norm)}.pth'
        assert convert_tool(tmp_path / 'bn.pth', out, '--config', config, *norm) == 0
        state = torch.load(out, weights_only=True)['state_dict']
        assert state['backbone.layer2.0.bn1.running_cov'].shape == (2, 4, 4)
        assert state['backbone.bn1.sw_mean_weight'].shape == (3,)
        assert 'backbone.bn1.sw_var_weight' not in state
        assert ('neck.lateral_convs.0.bn.running_var' in state) == (not norm)


def network(places):
    """A classifier with batch norms, and other layers at some places."""
    net = classifier(18, {'type': 'BN'})
    for place, layer in places.items():
        parent, _, leaf = f'backbone.{place}'.rpartition('.')
        setattr(net.get_submodule(parent), leaf, layer)
    generator = torch.Generator().manual_seed(0)
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return net


SW_PLACES = {'bn1': 4, 'layer1.1.bn1': 4, 'layer2.1.bn1': 8, 'layer3.1.bn1': 16}


def sw_network(**options):
    return network(
        {place: SW(size, num_pergroup=2, **options) for place, size in SW_PLACES.items()}
    )


@pytest.mark.parametrize(
    ('build', 'released', 'line'),
    [
        (
            lambda: sw_network(sw_type=5),
            {
                'sw1.weight': (4,), 'sw1.running_mean': (2, 2, 1), 'sw1.running_cov': (2, 2, 2),
                'layer3.1.sw1.sw_mean_weight': (5,), 'layer3.1.bn2.running_var': (16,),
            },
            "type='SW', num_pergroup=2, sw_type=5, released=True, momentum=0.01)",
        ),
        (
            lambda: sw_network(tie_weight=True),
            {'sw1.sw_mean_weight': (2,)},
            "type='SW', num_pergroup=2, sw_type=2, tie_weight=True, released=True",
        ),
        (
            lambda: network({'bn1': IterNorm(4, num_channels=2)}),
            {
                'bn1.weight': (1, 4, 1, 1), 'bn1.running_mean': (2, 2, 1),
                'bn1.running_wm': (2, 2, 2), 'layer1.1.bn1.running_mean': (4,),
            },
            "type='IterNorm', num_channels=2); T as it was trained",
        ),
    ],
    ids=['sw_5', 'sw_tied', 'iternorm'],
)  # fmt: skip
def test_to_the_release_and_back(build, released, line, tmp_path, capsys):
    net = build()
    files = [tmp_path / f'{name}.pth' for name in 'abc']
    torch.save({'state_dict': net.state_dict()}, files[0])
    assert convert_tool(files[0], files[1], '--to', 'released') == 0
    theirs = torch.load(files[1], weights_only=True)['state_dict']
    assert {name: tuple(theirs[name].shape) for name in released} == released
    assert not {'bn1.num_batches_tracked', 'sw1.num_batches_tracked'} & theirs.keys()
    assert ('sw1.weight' in theirs) != ('bn1.weight' in theirs)
    capsys.readouterr()
    assert convert_tool(files[1], files[2], '--to', 'classifier') == 0
    again = torch.load(files[2], weights_only=True)['state_dict']
    assert_same_tensors(again, dict(net.state_dict()))
    assert line in capsys.readouterr().out


@pytest.mark.parametrize('layer', [SW(4, num_pergroup=2), IterNorm(4)])
def test_what_no_released_network_has(layer):
    net = network({'layer1.0.bn2': layer, 'layer2.1.bn1': SW(8, num_pergroup=2)})
    with pytest.raises(CheckpointError, match=r'layer1\.0\.bn2|norms of several kinds'):
        convert(Source('a.pth', dict(net.state_dict())), 'released')


def test_released_gw():
    """Its file tells it by the shapes alone."""
    net = network({'bn1': GW(4), 'layer1.0.bn2': GW(4)})
    state = {name.removeprefix('backbone.').removeprefix('head.'): t
             for name, t in net.state_dict().items()}  # fmt: skip
    for name in ('bn1', 'layer1.0.bn2'):
        for leaf in ('weight', 'bias'):
            state[f'{name}.{leaf}'] = state[f'{name}.{leaf}'].view(1, 4, 1, 1)
    conversion = convert(Source('a.pth', state), 'classifier')
    assert_same_tensors(conversion.state, dict(net.state_dict()))
    assert conversion.report.norms == {'GW': 2, 'BN': 18}
    assert "norm_cfg=dict(type='GW'); num_groups (or num_channels) and T as" in str(
        conversion.report
    )


@pytest.mark.parametrize(
    ('lacking', 'message'),
    [
        ('bn1.running_cov', 'layer bn1 is not a whole SW layer: running_cov missing'),
        ('bn1.sw_mean_weight', 'layer bn1 is not a whole SW layer: sw_mean_weight missing'),
    ],
)
def test_a_damaged_layer(lacking, message):
    state = dict(resnet({'type': 'SW'}).state_dict())
    del state[lacking]
    with pytest.raises(CheckpointError, match=message):
        convert(Source('a.pth', state))
    whole = copy.copy(state) | {lacking: torch.ones(4)}
    with pytest.raises(
        CheckpointError, match=r'bn1 (has 8 channels: .*sw_type|does not fit|is not)'
    ):
        convert(Source('a.pth', whole))


def test_a_network_of_another_width():
    bn, sw = resnet({'type': 'BN'}, base_channels=12), resnet({'type': 'SW', 'num_pergroup': 8})
    with pytest.raises(CheckpointError, match=r'layer layer1\.0\.bn1 does not fit'):
        converted(bn, norm='SW', model=own_layers(sw))


def test_another_norm_cannot_become_one_of_them():
    with pytest.raises(CheckpointError, match='layer bn1 is SN, which cannot become SW'):
        converted(resnet({'type': 'SN'}), norm='SW')
