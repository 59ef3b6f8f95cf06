"""BCN against torch's batch norm and group norm in a row, and the released layer's outputs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call

from normplug.norms import BCN
from tests.cases import assert_same, by_formula, random_input, run
from tests.norms.pn_cases import EXACT, trained
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


def test_released_layer():
    golden, layer = load('bcn_2d'), BCN(8, num_groups=4).double()
    layer.load_state_dict(
        {k.removeprefix('before.'): v for k, v in golden.items() if k.startswith('before.')}
    )

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
