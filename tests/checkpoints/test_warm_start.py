"""A network with another norm goes on from a trained one."""

import pytest
import torch
from torch import nn

from normplug import IBN, NORMS, SN
from normplug.checkpoints import CheckpointError, convert
from normplug.checkpoints.layers import kind_of
from normplug.checkpoints.source import Source
from normplug.norms.history import History
from normplug.norms.ssn import set_radius
from tests.mm.norm_layers import build, image, norm_layers, own_layers, randomize, resnet


def trained(norm_cfg):
    """A narrow ResNet with random parameters and the statistics of its own activations."""
    net = randomize(resnet({**norm_cfg, 'momentum': None}, norm_eval=False))
    with torch.no_grad():
        for seed in range(3):
            net(image(4, seed=seed))
    return net


def converted(net, **options):
    return convert(Source('net.pth', dict(net.state_dict())), **options)


def loaded(conversion, norm_cfg):
    net = resnet(norm_cfg, norm_eval=False)
    net.load_state_dict(conversion.state, strict=True)
    return net


def features(net, training=False):
    net.train(training)
    with torch.no_grad():
        return net(image())[-1]


def off(got, want):
    return ((got - want).norm() / want.norm()).item()


@pytest.mark.parametrize('norm', ['SN', 'SSN'])
def test_batch_norm_with_its_features(norm):
    bn = trained({'type': 'BN'})
    biased = loaded(converted(bn, norm=norm, logit_init='bn'), {'type': norm})
    uniform = loaded(converted(bn, norm=norm), {'type': norm})
    for name, layer in own_layers(uniform).items():
        theirs = bn.get_submodule(name)
        for part in ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked'):
            assert torch.equal(getattr(layer, part), getattr(theirs, part)), f'{name}.{part}'
        assert torch.equal(layer.mean_weight, torch.ones(3))  # equal ratios
    want = features(bn)
    # Each of 20 layers mixes in half a per cent of other statistics.
    assert off(features(biased), want) < 0.05
    assert off(features(uniform), want) > 5 * off(features(biased), want)


def test_population_norm_is_taken_as_batch_norm():
    """Its statistics are; the kurtosis of drawn noise, or BRN's bounds, are told to be left out."""
    pn = trained({'type': 'PN', 'noise': 'both', 'samples': 16})
    for layer in own_layers(pn).values():
        layer.kurtosis.normal_()
    conversion = converted(pn, norm='SN', logit_init='bn')
    assert conversion.report.norms == {'BN → SN': 20}
    assert sum(name.endswith('.kurtosis') for name in conversion.report.unused) == 20
    brn = converted(trained({'type': 'BRN'}), norm='SN', logit_init='bn')
    assert brn.report.norms == {'BN → SN': 20}
    assert sum(name.endswith(('.r_max', '.d_max')) for name in brn.report.unused) == 40
    sn = loaded(conversion, {'type': 'SN'})
    assert torch.equal(sn.bn1.running_var, pn.bn1.running_var)
    assert off(features(sn), features(pn)) < 0.05


def test_what_cbn_remembers_is_left_out():
    bn = resnet({'type': 'BN'})
    history = {f'bn1.{name}': torch.zeros(1) for name in History.NAMES}
    conversion = convert(Source('net.pth', {**bn.state_dict(), **history}), norm='SN')
    assert set(conversion.report.unused) == history.keys()
    assert conversion.state.keys() == resnet({'type': 'SN'}).state_dict().keys()


def test_logit_init_is_that_of_sn():
    bn = trained({'type': 'BN'})
    state = converted(bn, norm='SN', logit_init='bn').state
    assert torch.equal(state['bn1.mean_weight'], SN(8, logit_init='bn').mean_weight)
    ssn = loaded(converted(bn, norm='SSN', logit_init='bn'), {'type': 'SSN'})
    set_radius(ssn, 0.0)
    assert ssn.bn1.mean_choice.sum() == 0  # it has still to be learned


def test_batch_norm_to_ibn_net_a():
    bn = trained({'type': 'BN'})
    conversion = converted(bn, norm='IBN')
    net = build(
        dict(type='IBNResNet', depth=18, base_channels=8, stem_channels=8, norm_eval=False),
        'mmdet',
    )
    net.load_state_dict(conversion.state, strict=True)
    kinds = norm_layers(net)
    assert sorted(kinds.values()).count('IBN') == 6
    for name, layer in net.named_modules():
        if isinstance(layer, IBN):
            theirs, half = bn.get_submodule(name), layer.split
            assert torch.equal(layer.weight, theirs.weight)
            assert torch.equal(layer.running_mean, theirs.running_mean[half:])
            assert torch.equal(layer.running_var, theirs.running_var[half:])
    assert conversion.report.norms == {'BN': 14, 'BN → IBN': 6}


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('options', [{}, {'using_bn': False}], ids=['three', 'two'])
def test_sn_to_ssn_computes_the_same(options, training):
    sn = trained({'type': 'SN', **options})
    ssn = loaded(converted(sn, norm='SSN'), {'type': 'SSN', **options})
    for name, layer in own_layers(ssn).items():
        for got, want in zip(layer.ratios(), sn.get_submodule(name).ratios(), strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-6)
        assert layer.radius == 0
        assert not layer.mean_choice.any()
    assert off(features(ssn, training), features(sn, training)) < 1e-4


def test_sn_to_hard_sn_decides_by_argmax():
    sn = trained({'type': 'SN'})
    with torch.no_grad():
        sn.bn1.mean_weight.copy_(torch.tensor([0.3, 2.0, 1.0]))
        sn.bn1.var_weight.copy_(torch.tensor([0.3, 0.2, 0.31]))
    conversion = converted(sn, norm='hard-SN')
    hard = loaded(conversion, {'type': 'SSN'})
    assert hard.bn1.ratios()[0].tolist() == [0, 1, 0]
    assert hard.bn1.ratios()[1].tolist() == [0, 0, 1]
    for name, layer in own_layers(hard).items():
        theirs = sn.get_submodule(name)
        for part in ('mean', 'var'):
            choice, logits = getattr(layer, f'{part}_choice'), getattr(theirs, f'{part}_weight')
            assert choice.argmax() == logits.argmax(), name
            assert choice.sum() == 1
            assert torch.equal(getattr(layer, f'{part}_weight'), choice)  # as after a training
        assert layer.radius == 1
    before = {name: value.clone() for name, value in hard.named_buffers() if 'choice' in name}
    set_radius(hard, 0.1)  # a training that starts anew does not undo it
    for name, value in before.items():
        assert torch.equal(hard.get_buffer(name), value)
    assert 'tied' not in str(conversion.report)


def test_hard_sn_tells_of_ties():
    report = str(converted(resnet({'type': 'SN'}), norm='hard-SN').report)
    assert '40 ratios are tied, and the first is chosen: bn1.mean_weight' in report


def test_a_whole_detector_keeps_its_names():
    state = {
        'backbone.bn1.weight': torch.rand(4),
        'backbone.bn1.bias': torch.rand(4),
        'backbone.bn1.running_mean': torch.rand(4),
        'backbone.bn1.running_var': torch.rand(4),
        'neck.convs.0.bn.weight': torch.rand(2),
        'neck.convs.0.bn.bias': torch.rand(2),
        'neck.convs.0.bn.running_mean': torch.rand(2),
        'neck.convs.0.bn.running_var': torch.rand(2),
        'neck.gn.weight': torch.rand(2),
        'neck.gn.bias': torch.rand(2),
        'bbox_head.fc.weight': torch.rand(3, 2),
    }
    result = convert(Source('det.pth', state), norm='SN')
    assert result.report.norms == {'BN → SN': 2}
    for name, value in state.items():
        assert torch.equal(result.state[name], value), name
    added = {'mean_weight', 'var_weight', 'num_batches_tracked'}
    new = {f'{layer}.{leaf}' for layer in ('backbone.bn1', 'neck.convs.0.bn') for leaf in added}
    assert result.state.keys() - state.keys() == new
    assert sorted(result.report.anew) == sorted(new)


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
def test_deep_stem_and_average_pooling(scope):
    """ResNetV1d; mmseg's own default is V1c, the stem alone."""
    options = {'deep_stem': True, 'avg_down': True}
    bn = randomize(resnet({'type': 'BN'}, scope, **options))
    conversion = converted(bn, norm='SN')
    net = resnet({'type': 'SN'}, scope, **options)
    net.load_state_dict(conversion.state, strict=True)
    assert str(conversion.network) == 'ResNet-18'
    assert conversion.report.norms == {'BN → SN': 22}
    layer = 'layer2.0.downsample.2'
    assert torch.equal(net.get_submodule(layer).weight, bn.get_submodule(layer).weight)


def test_half_precision_stays():
    bn = trained({'type': 'BN'}).half()
    state = converted(bn, norm='SN', logit_init='bn').state
    assert state['bn1.mean_weight'].dtype == torch.float16
    assert torch.equal(state['bn1.running_var'], bn.bn1.running_var)


@pytest.mark.parametrize(('have', 'norm'), [('SSN', 'SN'), ('IBN', 'SN'), ('SSN', 'hard-SN')])
def test_what_is_not_known_is_an_error(have, norm):
    with pytest.raises(CheckpointError, match=rf'layer bn1 is {have}, which cannot become {norm}'):
        converted(resnet({'type': have}), norm=norm)


def test_every_registered_kind_is_told_from_its_tensors():
    """A new normalizer that is not must be added to kind_of, or its checkpoints pass as BN's."""
    for name, cls in NORMS.items():
        batch_norms = ('PortableSyncBN', 'GhostBN', 'KN', 'SyncKN', 'PN', 'SyncPN')
        batch_norms += ('BRN', 'SyncBRN', 'CBN')
        batch_norms += ('EBN', 'SyncEBN')  # whose tensors are a batch norm's alone
        kind = 'BN' if name in batch_norms else name.removeprefix('Sync').removeprefix('Est')
        if name not in ('GW', 'FRN'):  # as a group norm's, and no conversion is needed
            assert kind_of(cls(4).state_dict()) == kind
    assert kind_of(nn.BatchNorm2d(4).state_dict()) == 'BN'
    assert kind_of(nn.GroupNorm(2, 4).state_dict()) is None
    assert kind_of(nn.Conv2d(4, 1, 1).state_dict()) is None
