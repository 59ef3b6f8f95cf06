"""BCN against torch's batch norm and group norm in a row, and the released layer's outputs."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from normplug.norms import BCN, EstBCN
from tests.cases import assert_same, by_formula, random_input, run
from tests.norms.pn_cases import EXACT, by_channel, trained
from tests.test_golden import load

SHAPE = (3, 6, 4, 2)
# Where the released layer has them.
RELEASED = {
    'group_weight': 'weight',
    'group_bias': 'bias',
    **{
        name: f'bn.{name}'
        for name in ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
    },
}


def in_a_row(layer, x):
    """torch's two layers, each with its own passes."""
    running = layer.running_mean.clone(), layer.running_var.clone()
    y = F.batch_norm(
        x, *running, layer.weight, layer.bias, layer.training, layer.momentum, layer.eps
    )
    wide = layer.group_weight.repeat_interleave(6 // layer.num_groups)
    shift = layer.group_bias.repeat_interleave(6 // layer.num_groups)
    return F.group_norm(y, layer.num_groups, wide, shift, layer.eps)


@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('groups', [1, 2, 6])
def test_batch_norm_and_group_norm_in_a_row(groups, training):
    layer = trained(BCN(6, num_groups=groups)).train(training)
    x, dy = (random_input(SHAPE, torch.float64, seed) for seed in (0, 5))
    want = by_formula(layer, in_a_row, x, dy)
    got = run(layer, x, dy)
    assert_same({name: got[name] for name in want}, want, EXACT)


@pytest.mark.parametrize('inner', ['bn.', 'pbn.'])
def test_released_layer(inner):
    """Of the README, and with the name that its batch norm has in the networks for ImageNet."""
    golden, layer = load('bcn_2d'), BCN(8, num_groups=4).double()
    before = {k.removeprefix('before.'): v for k, v in golden.items() if k.startswith('before.')}
    layer.load_state_dict({name.replace('bn.', inner): v for name, v in before.items()})

    def released(prefix, kinds, shapes, step=None):
        values = {}
        for own in kinds:
            value = golden[prefix + RELEASED[own]]
            values[own] = (value if step is None else value[step]).reshape(shapes[own].shape)
        return values

    state = layer.state_dict()
    parameters, buffers = dict(layer.named_parameters()), dict(layer.named_buffers())
    for step in range(3):
        want = {name: golden[name][step] for name in ('y', 'dx')}
        grads = released('grad.', parameters, state, step)
        want |= {f'grad.{name}': value for name, value in grads.items()}
        want |= released('after.', buffers, state, step)
        assert_same(run(layer, golden['x'][step], golden['dy'][step]), want, 1e-12)
    grads = released('eval_grad.', parameters, state)
    want = {f'grad.{name}': value for name, value in grads.items()}
    want |= {'y': golden['eval_y'], 'dx': golden['eval_dx']}
    got = run(layer.eval(), golden['x'][0], golden['dy'][0])
    assert_same({name: got[name] for name in want}, want, 1e-12)


def test_gradients():
    layer = trained(BCN(6, num_groups=2))
    x = random_input(SHAPE, torch.float64).requires_grad_()
    names, values = zip(*layer.named_parameters(), strict=True)

    def function(x, *values):
        buffers = {name: buffer.clone() for name, buffer in layer.named_buffers()}
        return functional_call(layer, {**dict(zip(names, values, strict=True)), **buffers}, (x,))

    assert gradcheck(function, (x, *values))


def test_a_batch_norms_checkpoint_loads():
    layer, bn = BCN(6, num_groups=2), nn.BatchNorm2d(6)
    nn.init.normal_(bn.weight)
    with pytest.warns(UserWarning, match='no group_weight and group_bias, which stay'):
        layer.load_state_dict(bn.state_dict(), strict=False)
    assert torch.equal(layer.weight, bn.weight)
    assert torch.equal(layer.group_weight, torch.ones(2))


def test_groups_that_do_not_divide_the_channels():
    with pytest.raises(
        ValueError, match=r"type='BCN'.*num_groups=4 does not divide the 6 channels"
    ):
        BCN(6, num_groups=4)


def test_the_estimated_form():
    """The statistics move first, by the variance about the old mean; then they are constants."""
    layer = trained(EstBCN(6, num_groups=2, speed=0.25))
    shape = (4, 6, 5, 2)
    x, dy = (random_input(shape, torch.float64, seed) for seed in (0, 5))
    old, speed = layer.running_mean.clone(), 0.25
    of_batch = (x - by_channel(old)).square().mean((0, 2, 3))
    var = layer.running_var + speed * (of_batch - layer.running_var)
    mean = old + speed * (x.mean((0, 2, 3)) - old)

    def estimated(layer, x):
        y = (x - by_channel(mean)) / by_channel((var + layer.eps).sqrt())
        y = by_channel(layer.weight) * y + by_channel(layer.bias)
        groups = y.view(4, 2, -1)
        centred = groups - groups.mean(2, keepdim=True)
        groups = centred / (centred.square().mean(2, keepdim=True) + layer.eps).sqrt()
        weight, bias = layer.group_weight.view(1, 2, 1), layer.group_bias.view(1, 2, 1)
        return (weight * groups + bias).view(x.shape)

    want = by_formula(layer, estimated, x, dy) | {'running_mean': mean, 'running_var': var}
    got = run(layer, x, dy)
    assert_same({name: got[name] for name in want}, want, EXACT)
    # At a speed of 0 it is a frozen batch norm, with groups.
    layer.speed.zero_()
    assert_same({'y': layer(x)}, {'y': copy.deepcopy(layer).eval()(x)}, EXACT)


def test_the_estimated_form_under_checkpointing():
    layer = trained(EstBCN(6, num_groups=2, speed=0.25))
    twin = copy.deepcopy(layer)
    x, dy = (random_input((4, 6, 5, 2), torch.float64, seed) for seed in (0, 5))
    want = run(twin, x, dy)
    leaf = x.clone().requires_grad_()
    y = checkpoint(layer, leaf, use_reentrant=False)
    y.backward(dy)
    got = {'y': y.detach(), 'dx': leaf.grad, **dict(layer.named_buffers())}
    assert_same(got, {name: want[name] for name in got}, 0)


def test_a_checkpoint_of_another_speed_is_told():
    layer = EstBCN(6, num_groups=2, speed=0.1)
    with pytest.warns(UserWarning, match='speed of the checkpoint, 0.02, is taken in place of'):
        layer.load_state_dict(EstBCN(6, num_groups=2, speed=0.02).state_dict())
    layer = EstBCN(6, num_groups=2, speed=0.02)
    layer.load_state_dict(EstBCN(6, num_groups=2, speed=0.02).state_dict())  # without a warning


@pytest.mark.parametrize('speed', [-0.1, 2, True])
def test_wrong_speed(speed):
    with pytest.raises(ValueError, match='speed, the weight of the batch in the estimates'):
        EstBCN(6, num_groups=2, speed=speed)
