"""Instance-Batch Norm: equivalences, any ratio, foreign checkpoints."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normplug import IBN
from tests.cases import random_input


@pytest.mark.parametrize(('ratio', 'half'), [(0, 0), (0.25, 1), (0.5, 3), (0.75, 5), (1, 7)])
def test_halves_are_instance_and_batch_norm(ratio, half):
    layer = IBN(7, ratio=ratio).double()
    with torch.no_grad():
        layer.weight.normal_()
        layer.bias.normal_()
    x = random_input((3, 7, 4, 5), torch.float64)
    weight, bias = layer.weight, layer.bias
    parts = []
    if half:
        parts.append(F.instance_norm(x[:, :half], weight=weight[:half], bias=bias[:half]))
    if half < 7:
        rest = (weight[half:], bias[half:])
        parts.append(F.batch_norm(x[:, half:], None, None, *rest, training=True))
    torch.testing.assert_close(layer(x), torch.cat(parts, 1))
    assert layer.split == half


def test_eval_uses_running_statistics_for_the_batch_norm_part_only():
    layer, native = IBN(6), nn.BatchNorm2d(3)
    for seed in range(3):
        x = random_input((2, 6, 4, 4), seed=seed)
        layer(x)
        native(x[:, 3:])
    y = layer.eval()(x)
    torch.testing.assert_close(y[:, 3:], native.eval()(x[:, 3:]))
    torch.testing.assert_close(y[:, :3], F.instance_norm(x[:, :3]))


def test_stem_of_ibn_b_ignores_a_gain_on_the_image():
    """All-IN: a linear change of an image's contrast leaves the output (the paper's Table 1)."""
    layer = IBN(4, ratio=1, eps=1e-12).double()
    x = random_input((2, 4, 5, 5), torch.float64)
    torch.testing.assert_close(layer(1.5 * x + 3), layer(x))


@pytest.mark.parametrize('ratio', [-0.1, 1.01])
def test_wrong_ratio(ratio):
    with pytest.raises(ValueError, match=r'ratio must lie in \[0, 1\]'):
        IBN(4, ratio=ratio)


def released(half, rest):
    state = {f'IN.{name}': torch.randn(half) for name in ('weight', 'bias')}
    state |= nn.BatchNorm2d(rest).state_dict(prefix='BN.')
    state['BN.running_mean'] = torch.randn(rest)
    return state


def test_loads_the_released_layout_strictly():
    layer, state = IBN(5), released(2, 3)
    layer.load_state_dict(state, strict=True)
    assert torch.equal(layer.weight, torch.cat([state['IN.weight'], state['BN.weight']]))
    assert torch.equal(layer.bias, torch.cat([state['IN.bias'], state['BN.bias']]))
    assert torch.equal(layer.running_mean, state['BN.running_mean'])


def test_released_layout_of_another_ratio_is_an_error():
    with pytest.raises(RuntimeError, match='size mismatch for running_mean'):
        IBN(6, ratio=0.5).load_state_dict(released(2, 4))


def test_takes_its_part_of_a_batch_norm_checkpoint_and_says_so():
    native = nn.BatchNorm2d(6)
    native(random_input((4, 6, 3, 3)))
    layer = IBN(6)
    with pytest.warns(UserWarning, match='IBN layers are loaded from the checkpoint of another'):
        layer.load_state_dict(native.state_dict())
    assert torch.equal(layer.running_var, native.running_var[3:])
