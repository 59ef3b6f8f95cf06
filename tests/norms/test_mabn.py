"""MABN against the released layer's outputs, its formula written out, and batch norm."""

import copy

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from normplug.models import CenConv2d
from normplug.norms import MABN
from tests.cases import assert_same, random_input, run
from tests.norms.pn_cases import EXACT, SHAPE, by_channel, trained
from tests.test_golden import load

RELEASED = {
    'running_var': 'running_var',
    'square_window': 'buffer_x2',
    'gradient_window': 'buffer_gz',
    'num_batches_tracked': 'iters',
}


def released_state(golden):
    return {k.removeprefix('before.'): v for k, v in golden.items() if k.startswith('before.')}


def test_released_layer():
    """Warm-up, the filling of the windows, and steps by both averages."""
    golden, layer = load('mabn_first_steps'), MABN(6, window=4, warmup=2).double()
    layer.load_state_dict(released_state(golden))
    for step in range(8):
        got = run(layer, golden['x'][step], golden['dy'][step])
        names = 'y', 'dx', 'grad.weight', 'grad.bias'
        want = {name: golden[name][step] for name in names}
        for own, name in RELEASED.items():
            want[own] = golden[f'after.{name}'][step].reshape(got[own].shape)
        assert_same({name: got[name] for name in want}, want, EXACT)
    got = run(layer.eval(), golden['x'][0], golden['dy'][0])
    want = {name.removeprefix('eval_'): v for name, v in golden.items() if name.startswith('eval_')}
    assert_same({name: got[name] for name in want}, want, EXACT)


def test_released_convolution():
    golden, layer = load('mabn_cenconv'), CenConv2d(3, 4, 3, padding=1, bias=False).double()
    layer.load_state_dict(released_state(golden))
    got = run(layer, golden['x'][0], golden['dy'][0])
    assert_same(got, {name: golden[name][0] for name in got}, EXACT)


def late(**options):
    """A layer past its warm-up and the first use of r, whose windows are full."""
    layer = trained(MABN(3, window=3, warmup=0, **options))
    layer.running_mean.zero_()
    layer.num_batches_tracked.fill_(1001)
    layer.square_window.copy_(torch.rand(3, 3) + 0.5)
    layer.gradient_window.copy_(torch.randn(3, 3))
    return layer


@pytest.mark.parametrize('spread', [1.0, 100.0], ids=['r', 'r_clipped'])
def test_the_formula(spread):
    layer = late()
    x, dy = (random_input(SHAPE, torch.float64, seed) for seed in (0, 5))
    x = x * spread
    squares, gradients = layer.square_window.clone(), layer.gradient_window.clone()
    of_batch = x.square().mean((0, 2, 3))
    squares[1002 % 3] = of_batch
    var = squares.mean(0) + layer.eps
    r = (var / (layer.running_var + layer.eps)).sqrt().clamp(0.2, 5)
    assert bool((r == 5).any()) is (spread > 1)
    z = x / by_channel(var.sqrt())
    g = by_channel(layer.weight.detach() * r) * dy
    gradients[1002 % 3] = (g * z).mean((0, 2, 3))
    want = {
        'y': by_channel(layer.weight.detach() * r) * z + by_channel(layer.bias.detach()),
        'dx': (g - z * by_channel(gradients.mean(0))) / by_channel(var.sqrt()),
        'grad.weight': (dy * z).sum((0, 2, 3)) * r,
        'grad.bias': dy.sum((0, 2, 3)),
        'running_mean': torch.zeros(3),
        'running_var': 0.98 * layer.running_var + 0.02 * (var - layer.eps),
        'num_batches_tracked': torch.tensor(1002),
        'square_window': squares,
        'gradient_window': gradients,
    }
    assert_same(run(layer, x, dy), want, EXACT)


def test_gradients_of_the_warm_up():
    """There the gradient is that of the output."""
    layer = trained(MABN(3))
    layer.num_batches_tracked.zero_()
    x = random_input(SHAPE, torch.float64).requires_grad_()

    def function(x, weight, bias):
        buffers = {name: buffer.clone() for name, buffer in layer.named_buffers()}
        return functional_call(layer, {'weight': weight, 'bias': bias, **buffers}, (x,))

    assert gradcheck(function, (x, layer.weight, layer.bias))


@pytest.mark.parametrize('reentrant', [True, False])
def test_checkpointing_moves_the_windows_once(reentrant):
    layer = late()
    twin = copy.deepcopy(layer)
    for seed in range(3):
        x, dy = (random_input(SHAPE, torch.float64, seed + k) for k in (0, 5))
        want = run(twin, x, dy)
        leaf = x.clone().requires_grad_()
        layer.zero_grad()
        y = checkpoint(layer, leaf, use_reentrant=reentrant)
        y.backward(dy)
        got = {'y': y.detach(), 'dx': leaf.grad, **dict(layer.named_buffers())}
        assert_same(got, {name: want[name] for name in got}, 0)


def test_a_resumed_layer_goes_on_bit_for_bit():
    layer = late()
    run(layer, *(random_input(SHAPE, torch.float64, seed) for seed in (0, 5)))
    twin = MABN(3, window=3, warmup=0).double()
    twin.load_state_dict(layer.state_dict())
    for seed in range(2):
        x, dy = (random_input(SHAPE, torch.float64, seed + k) for k in (1, 6))
        assert_same(run(twin, x, dy), run(layer, x, dy), 0)


def test_an_overflow_stays_out_of_the_windows():
    layer = late()
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    x = random_input(SHAPE, torch.float64).requires_grad_()
    layer(x).backward(torch.full(SHAPE, float('inf'), dtype=torch.float64))
    assert torch.equal(layer.gradient_window, before['gradient_window'])
    assert not torch.equal(layer.square_window, before['square_window'])


def test_nothing_that_trains_is_added_to_the_graph():
    layer = late().requires_grad_(requires_grad=False)
    assert not layer(random_input(SHAPE, torch.float64)).requires_grad


def test_a_batch_norm_is_the_same_function_in_evaluation():
    bn = trained(nn.BatchNorm2d(3))
    layer = MABN(3).double()
    with pytest.warns(UserWarning, match='CenConv'):
        layer.load_state_dict(bn.state_dict(), strict=False)
    x, dy = (random_input(SHAPE, torch.float64, seed) for seed in (0, 5))
    want = run(bn.eval(), x, dy)
    got = run(layer.eval(), x, dy)
    assert_same({name: got[name] for name in ('y', 'dx')}, {n: want[n] for n in ('y', 'dx')}, 1e-11)
    assert not layer.running_mean.any()
    assert layer.num_batches_tracked == 0  # its warm-up is to come, also of a trained batch norm


def test_windows_of_another_length_start_empty():
    trained_by_32, layer = late(), MABN(3, window=5)
    with pytest.warns(UserWarning, match='windows of 3 batches, and norm_cfg window=5'):
        layer.load_state_dict(trained_by_32.state_dict())
    assert layer.num_batches_tracked == 0
    assert not layer.gradient_window.any()
    torch.testing.assert_close(layer.running_var, trained_by_32.running_var.float())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'window': 0}, 'window must be a number of batches'),
        ({'window': True}, 'window must be a number of batches'),
        ({'warmup': -1}, 'warmup must be a number of batches'),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=f"norm_cfg=dict.type='MABN'.: {message}"):
        MABN(3, **options)
