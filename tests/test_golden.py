"""Outputs of the released implementations, layer by layer and as whole networks."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from normplug import IBN, SN
from tests.cases import TOLERANCE, assert_same, run

DATA = Path(__file__).parent / 'data'
LAYERS = sorted(p.stem for p in DATA.glob('*.npz') if p.stem.startswith(('sn', 'ibn')))


def load(name):
    with np.load(DATA / f'{name}.npz') as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def build(name, before, channels):
    """The layer that the released one corresponds to; released momenta weigh the old value."""
    if name.startswith('ibn'):
        return IBN(channels)
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
            if own == 'num_batches_tracked' and name.startswith('sn'):
                continue  # released SN does not count
            want[key] = ours(released, tensor.shape, own)
    if 'batch_average' in name:  # the released buffer sums E[x²]; ours averages variances
        want['running_var'] = want['running_var'] - want['running_mean'].square()
    got = {key: tensor for key, tensor in got.items() if key in want}
    assert_same(got, want, TOLERANCE[torch.float32])


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('name', ['resnet50_sn', 'resnet50_sn_8x1'])
def test_network(name, training):
    """Released weights in mmdet's ResNet by a change of names alone: sn1 → bn1."""
    resnet = pytest.importorskip('mmdet.models.backbones.resnet').ResNet
    sys.path.insert(0, str(DATA))
    from fill import filled

    golden = load(f'net_{name}')
    shapes = json.loads((DATA / 'released_state_dicts.json').read_text())[name]
    state = {
        key.replace('sn', 'bn'): filled(key, tuple(shape))
        for key, shape in shapes.items()
        if not key.startswith('fc.')
    }
    norm = {'type': 'SN', 'released_statistics': True, 'using_bn': '8x1' not in name}
    model = resnet(depth=50, norm_cfg=norm, norm_eval=False, style='pytorch')
    model.load_state_dict(state, strict=True)
    model.train(training)
    with torch.no_grad():
        features = model(golden['x'])
    for stage, feature in enumerate(features, 1):
        want = golden[f'{"train" if training else "eval"}.layer{stage}']
        every = feature.shape[1] // want.shape[1]  # some stages keep every 8th channel
        got = feature[:, ::every]
        scale = want.abs().max()
        # 53 layers, each within a few float32 roundings of the released order of operations.
        assert (got - want).abs().max() <= 2e-4 * scale, f'layer{stage}'
