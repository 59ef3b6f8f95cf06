"""IBN-Net a, b, c, d on the ResNets of all three packages; numbers also in tests/test_golden.py."""

import copy
import pickle
import re
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from normplug.models.isw_layer import ISW
from normplug.norms import IBN, SN, SyncIBN
from tests.mm.norm_layers import all_scopes, buffers_of, build, image, norm_layers, randomize

# These build with mmcv.
layers = pytest.importorskip('normplug.models.ibn_layers')
HalfInstanceNorm, ParallelNorm = layers.HalfInstanceNorm, layers.ParallelNorm
half_instance_norm = layers.half_instance_norm
NormAfterAddition = pytest.importorskip('normplug.models.ibn_resnet').NormAfterAddition

BN = {'type': 'BN'}
A, B = ('a', 'a', 'a', None), ('b', 'b', None, None)


def ibn_resnet(ibn_cfg, scope='mmdet', norm_cfg=BN, **options):
    """Of 8 base channels; every stage gives its features, every norm trains."""
    options = {'type': 'IBNResNet', 'depth': 18, 'norm_eval': False, **options}
    widths = {'base_channels': 8, 'stem_channels': 8, 'out_indices': (0, 1, 2, 3)}
    return build({'norm_cfg': norm_cfg, 'ibn_cfg': ibn_cfg, **widths, **options}, scope)


def places(model):
    """Names of IBN-Net's own norms, in the order of the modules."""
    kinds = (IBN, HalfInstanceNorm, ParallelNorm)
    found = [name for name, m in model.named_modules() if isinstance(m, kinds)]
    return [name for name in found if name.rpartition('.')[0] not in found]  # not their parts


@all_scopes
@pytest.mark.parametrize(('depth', 'blocks'), [(18, 2222), (34, 3463), (50, 3463), (101, None)])
def test_placement_by_stage(scope, depth, blocks):
    counts = [3, 4, 23, 3] if blocks is None else [int(n) for n in str(blocks)]
    first = [f'layer{i + 1}.{j}.bn1' for i, n in enumerate(counts) for j in range(n)]
    last = [f'layer{i + 1}.{n - 1}.IN' for i, n in enumerate(counts)]
    up_to_3 = [name for name in first if not name.startswith('layer4')]
    assert places(ibn_resnet(A, scope, depth=depth)) == up_to_3
    assert places(ibn_resnet(B, scope, depth=depth)) == ['bn1', *last[:2]]
    assert places(ibn_resnet(('c', 'c', 'c', None), scope, depth=depth)) == up_to_3
    assert places(ibn_resnet(('d', 'd', None, None), scope, depth=depth)) == last[:2]
    isw = ibn_resnet(('isw', 'isw', None, None), scope, norm_cfg=dict(BN, eps=1e-3), depth=depth)
    assert [n for n, m in isw.named_modules() if isinstance(m, ISW)] == ['bn1', *last[:2]]
    assert {m.eps for m in isw.modules() if isinstance(m, ISW)} == {1e-3}
    mixed = ibn_resnet([None, 'b', None, 'a'], scope, depth=depth)  # the stem is stage 1's
    stage_4 = [name for name in first if name.startswith('layer4')]
    assert sorted(places(mixed)) == sorted([last[1], *stage_4])


@all_scopes
@pytest.mark.parametrize('variant', ['IBNResNetV1c', 'IBNResNetV1d'])
def test_deep_stem(scope, variant):
    model = ibn_resnet(B, scope, type=variant)
    stem = [m for m in model.stem.modules() if isinstance(m, (nn.BatchNorm2d, IBN))]
    assert [type(m) for m in stem] == [nn.BatchNorm2d, nn.BatchNorm2d, IBN]
    assert stem[-1].ratio == 1
    assert any(isinstance(m, nn.AvgPool2d) for m in model.layer2.modules()) == variant.endswith('d')
    assert len(model(image(2, 32))) == 4
    assert places(ibn_resnet(A, scope, type=variant))[0] == 'layer1.0.bn1'


@pytest.mark.parametrize(
    ('norm', 'first', 'others'),
    [
        (BN, 'IBN', 'BatchNorm2d'),
        ({'type': 'SyncBN'}, 'SyncIBN', 'SyncBatchNorm'),
        ({'type': 'PortableSyncBN'}, 'SyncIBN', 'PortableSyncBN'),
        ({'type': 'SN'}, 'SN', 'SN'),
        ({'type': 'GN', 'num_groups': 2}, 'GroupNorm', 'GroupNorm'),
    ],
    ids=lambda value: value.get('type') if isinstance(value, dict) else None,
)
def test_the_other_half_follows_norm_cfg(norm, first, others):
    model = ibn_resnet(A, norm_cfg={**norm, 'eps': 1e-3})
    found = norm_layers(model)
    if first in ('IBN', 'SyncIBN'):
        assert {found.pop(name) for name in places(model)} == {first}
    else:
        for name in places(model):
            assert found.pop(f'{name}.IN') == 'IBN'
            assert found.pop(f'{name}.BN') == first
    assert set(found.values()) == {others}
    assert {m.eps for m in model.modules() if hasattr(m, 'eps')} == {1e-3}
    if norm['type'] != 'SyncBN':  # which needs a GPU
        model(image(2, 32))


def by_hand(model, name, x):
    """The norm called ``name`` on x, in training mode, by PyTorch's functions."""
    parts = dict(model.named_modules())
    layers = [parts[f'{name}.IN'], parts[f'{name}.BN']]
    instance = F.instance_norm(
        x[:, : layers[0].num_features], weight=layers[0].weight, bias=layers[0].bias
    )
    if isinstance(layers[1], nn.Identity):
        return torch.cat([instance, x[:, layers[0].num_features :]], 1)
    batch = F.batch_norm(x, None, None, layers[1].weight, layers[1].bias, training=True)
    return torch.cat([instance, batch], 1)


@pytest.mark.parametrize('entry', ['c', 'd'])
@pytest.mark.parametrize('depth', [18, 50])
def test_c_and_d_by_definition(entry, depth):
    model = randomize(ibn_resnet((entry, None, None, None), depth=depth)).double()
    seen = {}
    for name in places(model):
        layer = model.get_submodule(name)
        layer.register_forward_hook(  # a copy: the ReLU after it works in place
            lambda _, x, y, name=name: seen.update({name: (x[0], y.clone())})
        )
    model(image(2, 32).double())
    assert len(seen) == {'c': len(model.layer1), 'd': 1}[entry]
    for name, (x, y) in seen.items():
        assert y.shape[1] == x.shape[1] * (2 if entry == 'c' else 1)
        torch.testing.assert_close(y, by_hand(model, name, x))


def test_b_does_not_see_the_contrast():
    """The stem's instance norm removes a factor of the image; a batch norm's statistics keep it."""
    x = image(2, 64)
    for ibn_cfg, invariant in ((B, True), (A, False)):
        model = randomize(ibn_resnet(ibn_cfg)).eval()
        one, other = model(x)[-1], model(1.5 * x)[-1]
        # What is left is eps beside the variance of the stem's features.
        assert ((one - other).abs().max() < 1e-3 * one.abs().max()) == invariant


OPTIONS = {
    'plain': {},
    'caffe': {'style': 'caffe'},
    'plugins': {
        'plugins': [
            {
                'cfg': {'type': 'ContextBlock', 'ratio': 1 / 4, 'postfix': f'_{i}'},
                'position': f'after_conv{i}',
            }
            for i in (1, 2, 3)
        ]
    },
    'dcn': {'dcn': {'type': 'DCNv2', 'deform_groups': 1}, 'stage_with_dcn': (True,) * 4},
    'drop_path': {'drop_path_rate': 0.5},
}


@pytest.mark.parametrize(
    ('scope', 'depth', 'options'),
    [(s, d, 'plain') for s in ('mmdet', 'mmseg', 'mmpretrain') for d in (18, 50)]
    + [(s, 50, o) for s in ('mmdet', 'mmseg') for o in ('caffe', 'plugins', 'dcn')]
    + [('mmpretrain', 50, 'drop_path')],
)
def test_a_block_with_a_neutral_norm_is_the_packages_own(scope, depth, options):
    model = randomize(ibn_resnet(B, scope, depth=depth, **OPTIONS[options]))
    block = model.layer1[-1]
    block.IN = nn.Identity()
    plain = next(t for t in type(block).mro() if t.__module__.startswith(scope))
    x = image(2, 8)[:, :1].expand(-1, block.conv1.in_channels, -1, -1)
    torch.manual_seed(1)
    got = block(x)
    torch.manual_seed(1)
    assert torch.equal(got, plain.forward(block, x))


@pytest.mark.filterwarnings('ignore:torch.utils.checkpoint')
@all_scopes
@pytest.mark.parametrize('ibn_cfg', [A, B, ('c', 'd', None, None)], ids=str)
def test_with_cp(scope, ibn_cfg):
    norm = {'type': 'PortableSyncBN'}  # BN itself updates its statistics twice
    plain = randomize(ibn_resnet(ibn_cfg, scope, norm)).double()
    saving = ibn_resnet(ibn_cfg, scope, norm, with_cp=True).double()
    saving.load_state_dict(plain.state_dict())
    found = []
    for model in (plain, saving):
        sum((y * (1 + y)).mean() for y in model(image(2, 32).double())).backward()
        found.append({name: p.grad for name, p in model.named_parameters()} | buffers_of(model))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


@all_scopes
def test_a_block_with_cp_keeps_its_input_alone(scope):
    block = ibn_resnet(B, scope, with_cp=True).layer1[-1]
    x = image(2, 8)[:, :1].expand(-1, 8, -1, -1).clone().requires_grad_()
    calls = []
    block.conv1.register_forward_hook(lambda *_: calls.append(1))
    block(x).sum().backward()
    assert len(calls) == 2


@all_scopes
def test_frozen_stages_and_norm_eval(scope):
    model = ibn_resnet(('b', 'a', 'c', 'd'), scope, frozen_stages=2, norm_eval=True)
    for training in (False, True):
        if training:
            model.train()
        for name, parameter in model.named_parameters():
            frozen = name.startswith(('conv1', 'bn1', 'layer1.', 'layer2.'))
            assert parameter.requires_grad == (not frozen), name
    assert model.layer3[0].training
    norms = [m for m in model.modules() if isinstance(m, (nn.BatchNorm2d, IBN))]
    assert not any(norm.training for norm in norms)
    # It does not reach the norms of this package elsewhere, and does not here.
    model = ibn_resnet(A, scope, norm_cfg={'type': 'PortableSyncBN'}, norm_eval=True)
    model.train()
    assert model.layer1[0].bn1.training
    assert model.layer1[0].bn2.training


def test_norm_cfg_freezes_all_norms():
    for norm in ({'type': 'SN', 'frozen': True}, {**BN, 'requires_grad': False}):
        model = ibn_resnet(('a', 'b', 'c', 'd'), norm_cfg=norm)
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert {name.split('.')[-2] for name in trained} <= {'conv1', 'conv2', '0'}


@all_scopes
@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('norm', ['BN', 'SN'])
def test_zero_init_residual(scope, depth, norm):
    model = ibn_resnet(('b', 'a', 'c', 'd'), scope, {'type': norm}, depth=depth)
    model.init_weights()
    for i in range(1, 5):
        for block in getattr(model, f'layer{i}'):
            assert not (block.norm3 if depth == 50 else block.norm2).weight.any()
            assert block.conv2.weight.any()
    assert model.layer1[-1].IN.weight.all()


def test_copies():
    """An EMA copies the model, data loaders and ranks may pickle it."""
    model = randomize(ibn_resnet(('b', 'a', 'c', 'd'))).eval()
    assert type(model).__name__ == 'IBNResNet'
    x = image(2, 32)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert all(map(torch.equal, twin(x), model(x)))


@pytest.mark.filterwarnings('ignore:.*another normalizer')
def test_the_weights_of_a_batch_norm_are_shared_out():
    bn = nn.BatchNorm2d(6)
    for tensor in bn.state_dict().values():
        tensor.copy_(torch.arange(6.0) if tensor.dim() else torch.tensor(3))
    mixed = half_instance_norm(6, {'type': 'SN'})
    missing = mixed.load_state_dict(bn.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert all(name.startswith(('BN.mean_', 'BN.var_')) for name in missing.missing_keys)
    assert mixed.IN.weight.tolist() == [0, 1, 2]
    assert mixed.BN.bias.tolist() == [3, 4, 5]
    assert mixed.BN.running_var.tolist() == [3, 4, 5]
    assert mixed.BN.num_batches_tracked == 3
    # An IBN layer's statistics are of its other half alone.
    mixed.load_state_dict(IBN(6).state_dict(), strict=False)
    assert mixed.BN.running_mean.tolist() == [0, 0, 0]
    again = half_instance_norm(6, {'type': 'SN'})
    again.load_state_dict(mixed.state_dict())
    assert isinstance(again.BN, SN)


def test_types_in_other_scopes():
    backbone = {'type': 'IBNResNet', 'depth': 18, 'ibn_cfg': A}
    other = build({**backbone, '_scope_': 'mmpretrain'}, 'mmseg')
    assert type(other).__module__ == 'normplug.models.mmpretrain_resnet'
    # Once built, also by the name in that package's registry.
    assert type(build({**backbone, 'type': 'mmpretrain.IBNResNet'}, 'mmdet')) is type(other)
    with pytest.raises(ValueError, match=r"default scope is mmengine.*_scope_='mmdet'"):
        build(backbone, 'mmengine')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'ibn_cfg': ('a', 'a', 'e', None)}, "backbone.ibn_cfg.2 must be 'a', 'b', 'c', 'd'"),
        ({'ibn_cfg': ('A', None, None, None)}, "backbone.ibn_cfg.0 must be 'a', 'b', 'c', 'd'"),
        ({'ibn_cfg': ('a', 'a', 'a')}, 'one entry for each of the 4 stages'),
        ({'ibn_cfg': A, 'num_stages': 3}, 'one entry for each of the 3 stages'),
        ({'ibn_cfg': 'aaa-'}, 'backbone.ibn_cfg must have one entry for each'),
        ({'ibn_cfg': A, 'depth': 20}, 'backbone.depth must be one of 18, 34, 50, 101, 152 for'),
        ({'ibn_cfg': list('aacc'), **OPTIONS['dcn']}, 'backbone.ibn_cfg.2 is'),
        ({'ibn_cfg': list('ccdd'), **OPTIONS['plugins']}, 'backbone.plugins does not'),
    ],
)
def test_bad_ibn_cfg(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build({'type': 'IBNResNet', 'depth': 50, **options}, 'mmdet')


def test_dcn_elsewhere_is_no_obstacle_to_c():
    options = {**OPTIONS['dcn'], 'stage_with_dcn': (False, False, False, True)}
    model = ibn_resnet(('c', 'c', 'c', 'b'), depth=50, **options)
    kinds = Counter(type(block.conv2).__name__ for block in (*model.layer1, *model.layer4))
    assert kinds == {'Conv2d': 3, 'ModulatedDeformConv2dPack': 3}
    assert isinstance(model.layer4[-1], NormAfterAddition)
    assert isinstance(half_instance_norm(4, {'type': 'SyncBN'}), SyncIBN)


def test_a_batch_norm_that_does_more_is_kept():
    """Its half of IBN is the layer itself, not a plain batch norm."""
    sparse = pytest.importorskip('mmpretrain.models').utils.SparseBatchNorm2d
    layer = half_instance_norm(8, {'type': 'mmpretrain.SparseBatchNorm2d'})
    assert type(layer.BN) is sparse
    assert type(half_instance_norm(8, BN)) is IBN
