"""Outputs of the released implementations, layer by layer and as whole networks."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from normplug.norms import IBN, SN, SSN
from normplug.norms.ssn import set_radius
from normplug.sparsestmax import sparsestmax
from tests.cases import FIXED_STATE, TOLERANCE, assert_same, run
from tests.mm.norm_layers import build as build_in_scope

DATA = Path(__file__).parent / 'data'
LAYERS = sorted(p.stem for p in DATA.glob('*.npz') if p.stem.startswith(('sn', 'ssn', 'ibn')))


def load(name):
    with np.load(DATA / f'{name}.npz') as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def build(name, before, channels):
    """The layer that the released one corresponds to; released momenta weigh the old value."""
    if name.startswith('ibn'):
        return IBN(channels)
    if name.startswith('ssn'):
        return SSN(channels, momentum=1 - 0.997, released_statistics=True)
    momentum = 1 - 0.9 if name.startswith('sn2d') else 1 - 0.997
    return SN(
        channels,
        momentum=None if 'batch_average' in name else momentum,
        using_in=not name.startswith('sn1d'),
        using_bn='running_mean' in before,
        released_statistics=True,
    )


def ours(released, shape, name):
    """One released tensor in our layout: (C,), and IBN's two halves in one."""
    halves = [released.get(part + name) for part in ('IN.', 'BN.')]
    tensor = released.get(name)
    if tensor is None:
        tensor = halves[1] if halves[0] is None else torch.cat(halves)
    return tensor.reshape(shape)


@pytest.mark.parametrize('name', LAYERS)
def test_layer(name):
    golden = load(name)
    before = {k.removeprefix('before.'): v for k, v in golden.items() if k.startswith('before.')}
    layer = build(name, before, golden['x'].shape[1])
    layer.load_state_dict(before, strict=True)
    got = run(layer.train('train' in name), golden['x'], golden['dy'])

    want = {'y': golden['y'], 'dx': golden['dx']}
    for prefix in ('grad.', 'after.'):
        released = {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}
        for key, tensor in got.items():
            own = key.removeprefix('grad.')
            if key.startswith('grad.') != (prefix == 'grad.') or key in ('y', 'dx'):
                continue
            if own == 'num_batches_tracked' and name.startswith(('sn', 'ssn')):
                continue  # released SN does not count
            if own in FIXED_STATE:
                continue  # kept in another form; see below
            if own in ('mean_weight', 'var_weight') and f'after.{own[:-7]}_fixed' in golden:
                released.setdefault(own, torch.zeros(3))  # it detaches what it has decided
            want[key] = ours(released, tensor.shape, own)
    if 'batch_average' in name:  # the released buffer sums E[x²]; ours averages variances
        want['running_var'] = want['running_var'] - want['running_mean'].square()
    got = {key: tensor for key, tensor in got.items() if key in want}
    assert_same(got, want, TOLERANCE[torch.float32])


@pytest.mark.parametrize('name', [name for name in LAYERS if name.startswith('ssn')])
def test_ssn_decides_as_released(name):
    golden = load(name)
    before = {k.removeprefix('before.'): v for k, v in golden.items() if k.startswith('before.')}
    layer = build(name, before, golden['x'].shape[1])
    layer.load_state_dict(before, strict=True)
    set_radius(layer, before['radius'].item())  # the released layer decides in its forward
    assert layer.mean_choice.sum() == golden['after.mean_fixed']
    assert layer.var_choice.sum() == golden['after.var_fixed']
    torch.testing.assert_close(layer.radius, golden['after.radius'].squeeze())


def test_sparsestmax():
    golden = load('sparsestmax')
    logits = golden['v'].double().requires_grad_()
    point = sparsestmax(logits, golden['radius'].double().unsqueeze(1))
    point.backward(golden['dp'].double())
    # Ten rows have tied logits; the released result for them is off the simplex, or NaN.
    ordered = golden['v'].sort(-1).values
    gap = ordered.diff().amin(-1, keepdim=True)
    tied = ordered.diff().amax(-1) == 0
    assert tied.sum() == 10
    # The released float32 result loses digits as two logits approach each other.
    for got, want, tolerance in (
        (point, golden['p'], 1e-5),
        (logits.grad, golden['dv'], 1e-5 / gap),
    ):
        error = (got - want).abs()
        assert (error[~tied] <= torch.as_tensor(tolerance).expand_as(error)[~tied]).all()


def released_network(name):
    """What the released network computed, and its weights by their released names."""
    sys.path.insert(0, str(DATA))
    from fill import filled

    shapes = json.loads((DATA / 'released_state_dicts.json').read_text())[name]
    state = {
        key: filled(key, tuple(shape)) for key, shape in shapes.items() if not key.startswith('fc.')
    }
    return load(f'net_{name}'), state


def assert_same_features(model, golden, training):
    model.train(training)
    with torch.no_grad():
        features = model(golden['x'])
    assert len(features) == 4
    for stage, feature in enumerate(features, 1):
        want = golden[f'{"train" if training else "eval"}.layer{stage}']
        every = feature.shape[1] // want.shape[1]  # some stages keep every 8th channel
        got = feature[:, ::every]
        scale = want.abs().max()
        # 53 layers, each within a few float32 roundings of the released order of operations.
        assert (got - want).abs().max() <= 2e-4 * scale, f'layer{stage}'


both_modes = pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])


@both_modes
@pytest.mark.parametrize('name', ['resnet50_sn', 'resnet50_sn_8x1', 'resnet50_ssn'])
def test_network(name, training):
    """Released weights in mmdet's ResNet by a change of names alone: sn1 → bn1."""
    resnet = pytest.importorskip('mmdet.models.backbones.resnet').ResNet
    golden, state = released_network(name)
    kind = 'SSN' if 'ssn' in name else 'SN'
    norm = {'type': kind, 'released_statistics': True, 'using_bn': '8x1' not in name}
    model = resnet(depth=50, norm_cfg=norm, norm_eval=False, style='pytorch')
    if kind == 'SSN':  # the released stem pools without padding
        model.maxpool = torch.nn.MaxPool2d(3, 2, ceil_mode=True)
    model.load_state_dict({key.replace('sn', 'bn'): tensor for key, tensor in state.items()})
    assert_same_features(model, golden, training)


@both_modes
@pytest.mark.parametrize('name', ['resnet50_ibn_a', 'resnet50_ibn_b'])
@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
def test_ibn_network(scope, name, training):
    """Released weights in the ResNets of all three packages, by their released names."""
    pytest.importorskip(scope)
    golden, state = released_network(name)
    model = build_in_scope(
        {
            'type': 'IBNResNet',
            'depth': 50,
            'ibn_cfg': ('a', 'a', 'a', None) if name.endswith('a') else ('b', 'b', None, None),
            'out_indices': (0, 1, 2, 3),
            'norm_eval': False,
            'style': 'pytorch',
        },
        scope,
    )
    model.load_state_dict(state, strict=True)
    assert_same_features(model, golden, training)
