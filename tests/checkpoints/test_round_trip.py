"""Released → ours → released, and ours → released → ours, bit for bit, at every depth."""

import pytest
import torch

from normplug.checkpoints import convert, read
from tests.checkpoints.networks import (
    assert_same_tensors,
    classifier,
    convert_tool,
    released_state,
)
from tests.mm.norm_layers import image, own_layers, randomize

KINDS = ('sn', 'sn_8x1', 'ssn', 'ibn_a', 'ibn_b')
_MODELS = {
    'sn': {'norm_cfg': {'type': 'SN'}},
    'sn_8x1': {'norm_cfg': {'type': 'SN', 'using_bn': False}},
    'ssn': {'norm_cfg': {'type': 'SSN'}},
    'ibn_a': {'type': 'IBNResNet', 'norm_cfg': {'type': 'BN'}, 'ibn_cfg': ('a', 'a', 'a', None)},
    'ibn_b': {'type': 'IBNResNet', 'norm_cfg': {'type': 'BN'}, 'ibn_cfg': ('b', 'b', None, None)},
}


def model(kind, depth=18):
    """A classifier of ours with the network, trained a little."""
    net = randomize(classifier(depth, **_MODELS[kind]))
    net.backbone(image())
    return net


def decide(net):
    """Of every SSN one ratio or both."""
    for index, layer in enumerate(own_layers(net).values()):
        layer.radius.fill_(0.9)
        layer.mean_choice[index % 3] = 1
        if index % 2:
            layer.var_choice[1] = 1


@pytest.mark.parametrize(
    ('kind', 'depth'),
    [*((kind, depth) for kind in KINDS for depth in (18, 101)), ('sn', 34), ('sn', 152)],
)
def test_released_to_ours_to_released(kind, depth, tmp_path):
    state = released_state(kind, depth)
    if kind == 'ssn':
        for name in [name for name in state if name.endswith('mean_fixed')]:
            state[name].fill_(1)
            state[name.replace('fixed', 'weight')] = torch.tensor([0.0, 1.0, 0.0])
    files = [tmp_path / f'{name}.pth' for name in 'abc']
    torch.save({'state_dict': state}, files[0])
    assert convert_tool(files[0], files[1], '--to', 'classifier') == 0
    assert convert_tool(files[1], files[2], '--to', 'released') == 0
    assert_same_tensors(read(str(files[2])).state, state)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('depth', [18, 50])
def test_ours_to_released_to_ours(kind, depth, tmp_path, capsys):
    net = model(kind, depth)
    if kind == 'ssn':
        decide(net)
    files = [tmp_path / f'{name}.pth' for name in 'abc']
    torch.save({'state_dict': net.state_dict(), 'meta': {'epoch': 3}}, files[0])
    assert convert_tool(files[0], files[1], '--to', 'released') == 0
    released = read(str(files[1])).state
    want = released_state(kind, depth)
    assert {name: tuple(v.shape) for name, v in released.items()} == {
        name: tuple(v.shape) for name, v in want.items()
    }
    assert {name: v.dtype for name, v in released.items()} == {
        name: v.dtype for name, v in want.items()
    }
    assert convert_tool(files[1], files[2], '--to', 'classifier') == 0
    again = torch.load(files[2], weights_only=True)
    assert_same_tensors(again['state_dict'], dict(net.state_dict()))
    assert again['meta'] == {'epoch': 3}


def test_released_ssn_computes_with_what_was_decided(tmp_path):
    """Its forward takes the logits for the ratios where the flag is set."""
    net = model('ssn')
    decide(net)
    torch.save(net.state_dict(), tmp_path / 'a.pth')
    state = convert(read(str(tmp_path / 'a.pth')), 'released').state
    for name, layer in own_layers(net).items():
        name = name.removeprefix('backbone.').replace('bn', 'sn')
        for part, ratios in zip(('mean', 'var'), layer.ratios(), strict=True):
            if state[f'{name}.{part}_fixed']:
                assert torch.equal(state[f'{name}.{part}_weight'], ratios.float()), name
            else:
                assert torch.equal(
                    state[f'{name}.{part}_weight'], getattr(layer, f'{part}_weight')
                ), name


@pytest.mark.parametrize('wrap', ['bare', 'module', 'state_dict', 'model', 'model and a name'])
def test_wrappers(wrap, tmp_path):
    state = released_state('sn', 18)
    saved = {
        'bare': state,
        'module': {'state_dict': {f'module.{name}': value for name, value in state.items()}},
        'state_dict': {'state_dict': state, 'epoch': 9, 'optimizer': {'state': {}}},
        'model': {'model': state},
        'model and a name': {'model': 'resnetv1sn18', 'state_dict': state},
    }[wrap]
    torch.save(saved, tmp_path / 'a.pth')
    assert_same_tensors(read(str(tmp_path / 'a.pth')).state, state)


def test_the_old_file_format(tmp_path):
    """Released files are older than torch 1.6."""
    state = released_state('sn', 18)
    torch.save(state, tmp_path / 'a.pth', _use_new_zipfile_serialization=False)
    assert_same_tensors(read(str(tmp_path / 'a.pth')).state, state)


@pytest.mark.parametrize('depth', [34, 101])
@pytest.mark.parametrize('kind', KINDS)
def test_a_classifier_loads_the_result_strictly(kind, depth, tmp_path):
    state = released_state(kind, depth)
    torch.save(state, tmp_path / 'a.pth')
    net = classifier(depth, **_MODELS[kind])
    net.load_state_dict(convert(read(str(tmp_path / 'a.pth')), 'classifier').state, strict=True)
    assert torch.equal(net.head.fc.weight, state['fc.weight'])
    assert torch.equal(net.backbone.layer4[1].conv2.weight, state['layer4.1.conv2.weight'])
