"""BRN against its formula written out, the released layer's outputs, and batch norm."""

import copy

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from normplug.norms import BRN, SyncBRN
from normplug.norms.brn import raise_bounds
from tests.cases import TOLERANCE, assert_same, random_input, run
from tests.norms.pn_cases import EXACT, SHAPE, by_channel, trained
from tests.test_golden import load


def r_and_d(layer, x):
    """Of each channel, by numbers and ``if``."""
    found = []
    for c, values in enumerate(x.detach().transpose(0, 1).flatten(1)):
        sigma = (layer.running_var[c].item() + layer.eps) ** 0.5
        of_batch = ((values - values.mean()).square().mean().item() + layer.eps) ** 0.5
        r, d = of_batch / sigma, (values.mean().item() - layer.running_mean[c].item()) / sigma
        most, far = layer.r_max.item(), layer.d_max.item()
        r = most if r > most else 1 / most if r < 1 / most else r
        found.append((r, far if d > far else -far if d < -far else d))
    return map(by_channel, torch.tensor(found, dtype=torch.float64).unbind(1))


def transcribed(layer, x):
    r, d = r_and_d(layer, x)
    mean = x.mean((0, 2, 3), keepdim=True)
    std = ((x - mean).square().mean((0, 2, 3), keepdim=True) + layer.eps).sqrt()
    return by_channel(layer.weight) * ((x - mean) / std * r + d) + by_channel(layer.bias)


@pytest.mark.parametrize('bounds', [(1.0, 0.0), (1.3, 0.4), (50.0, 50.0)], ids=str)
def test_the_formula(bounds):
    layer = trained(BRN(3, momentum=0.3, r_max=bounds[0], d_max=bounds[1]))
    native = nn.BatchNorm2d(3, momentum=0.3).double()
    native.load_state_dict(layer.state_dict(), strict=False)
    for seed in range(2):  # the second one sees what the first has moved
        x, dy = (random_input(SHAPE, torch.float64, seed + k) for k in (0, 5))
        leaf = x.clone().requires_grad_()
        y = transcribed(layer, leaf)
        dx, *grads = torch.autograd.grad(y, (leaf, layer.weight, layer.bias), dy)
        want = {'y': y.detach(), 'dx': dx, 'grad.weight': grads[0], 'grad.bias': grads[1]}
        native(x)
        assert_same(run(layer, x, dy), want | own_state(layer, native), EXACT)


def own_state(layer, native):
    return {name: getattr(layer, name) for name in ('r_max', 'd_max')} | dict(
        native.named_buffers()
    )


def test_some_are_clipped_and_some_are_not():
    """Of the case above."""
    layer, x = trained(BRN(3, r_max=1.3, d_max=0.4)), random_input(SHAPE, torch.float64)
    for part, clipped in zip(r_and_d(layer, x), ((1.3, 1 / 1.3), (0.4, -0.4)), strict=True):
        found = [any(abs(v - c) < 1e-6 for c in clipped) for v in part.flatten().tolist()]
        assert any(found)
        assert not all(found)
    layer.r_max.fill_(50)
    layer.d_max.fill_(50)
    want = copy.deepcopy(layer).eval()(x)
    torch.testing.assert_close(layer(x), want, rtol=1e-12, atol=1e-12)


def test_at_the_first_bounds_training_is_batch_norm():
    layer, native = trained(BRN(3)), nn.BatchNorm2d(3, momentum=0.01).double()
    native.load_state_dict(layer.state_dict(), strict=False)
    x, dy = (random_input(SHAPE, torch.float64, seed) for seed in (0, 5))
    assert_same(run(layer, x, dy), run(native, x, dy) | own_state(layer, native), EXACT)


def test_released_layer():
    """The training steps of the released layer, each from its own statistics.

    It keeps two pairs of statistics. r and d are by one, which averages standard deviations;
    evaluation is by the other. Ours is one pair, which averages variances.
    """
    golden = load('brn_clipped')
    layer = BRN(6, momentum=0.2, r_max=1.5, d_max=0.5)
    with torch.no_grad():
        layer.weight.copy_(golden['before.gamma'])
        layer.bias.copy_(golden['before.beta'])

    def statistic(name, steps_done):
        return golden[f'after.{name}'][steps_done - 1] if steps_done else golden[f'before.{name}']

    for step in range(4):
        layer.running_mean.copy_(statistic('renorm_mean', step))
        layer.running_var.copy_(statistic('renorm_stddev', step).square() - layer.eps)
        got = run(layer, golden['x'][step], golden['dy'][step])
        want = {'y': golden['y'][step], 'dx': golden['dx'][step]}
        want['grad.weight'] = golden['grad.gamma'][step]
        want['grad.bias'] = golden['grad.beta'][step]
        want['running_mean'] = statistic('renorm_mean', step + 1)
        assert_same({name: got[name] for name in want}, want, TOLERANCE[torch.float32])
    layer.running_mean.copy_(statistic('moving_mean', 4))
    layer.running_var.copy_(statistic('moving_variance', 4))
    y = layer.eval()(golden['x'][0])
    assert_same({'y': y}, {'y': golden['eval_y']}, TOLERANCE[torch.float32])


def test_gradients():
    """Where r and d are clipped in every channel, the gradient is that of a function."""
    layer = trained(BRN(3, r_max=1.01, d_max=0.01))
    x = random_input(SHAPE, torch.float64).requires_grad_()
    r, d = (part.flatten() for part in r_and_d(layer, x))
    assert all(min(abs(v - 1.01), abs(v - 1 / 1.01)) < 1e-6 for v in r.tolist())
    assert all(abs(abs(v) - 0.01) < 1e-6 for v in d.tolist())

    def function(x, weight, bias):
        buffers = {name: buffer.clone() for name, buffer in layer.named_buffers()}
        return functional_call(layer, {'weight': weight, 'bias': bias, **buffers}, (x,))

    assert gradcheck(function, (x, layer.weight, layer.bias))


def test_a_gradient_of_the_gradient_has_none_of_r_and_d():
    """No function has BRN's gradient where r moves, so no numerical derivative tells the truth."""
    layer = trained(BRN(3, r_max=50, d_max=50))
    grads = []
    for call in (lambda x: transcribed(layer, x), layer):
        layer.zero_grad()
        x = random_input(SHAPE, torch.float64).requires_grad_()
        (g,) = torch.autograd.grad(call(x).sigmoid().sum(), x, create_graph=True)
        g.square().sum().backward()
        grads.append([x.grad, layer.weight.grad.clone(), layer.bias.grad.clone()])
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('use_reentrant', [True, False])
def test_a_recomputation_has_the_statistics_of_its_forward(use_reentrant):
    plain = trained(BRN(3, momentum=0.5, r_max=3, d_max=5))
    saving = copy.deepcopy(plain)
    x = random_input(SHAPE, torch.float64)
    xs = [x.clone().requires_grad_() for _ in range(2)]
    plain(xs[0]).square().sum().backward()
    checkpoint(saving, xs[1], use_reentrant=use_reentrant).square().sum().backward()
    torch.testing.assert_close(xs[1].grad, xs[0].grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(saving.weight.grad, plain.weight.grad, rtol=1e-12, atol=1e-12)
    assert_same(saving.state_dict(), plain.state_dict(), 0)


def test_groups_of_images_have_r_and_d_of_their_own():
    layer = trained(BRN(3, r_max=1.3, d_max=0.4, virtual_batch_size=2))
    x = random_input(SHAPE, torch.float64)
    want = torch.cat([transcribed(layer, part) for part in x.split(2)])
    torch.testing.assert_close(layer(x), want, rtol=1e-12, atol=1e-12)


def test_bounds_only_widen():
    layer, frozen = BRN(3, r_max=2), BRN(3, frozen=True)
    raise_bounds(nn.Sequential(layer, nn.Sequential(frozen)), 1.5, 0.25)
    assert (layer.r_max, layer.d_max) == (2, 0.25)
    assert (frozen.r_max, frozen.d_max) == (1, 0)
    layer.reset_parameters()
    assert (layer.r_max, layer.d_max) == (2, 0)


def test_a_batch_norms_checkpoint_loads():
    layer = BRN(3, r_max=2)
    with pytest.warns(UserWarning, match='no r_max and d_max, which stay as norm_cfg has them'):
        layer.load_state_dict(nn.BatchNorm2d(3).state_dict(), strict=False)
    assert layer.r_max == 2


def test_fixed_bounds_that_a_checkpoint_replaces_are_named():
    layer = BRN(3, r_max=3, d_max=5)
    with pytest.warns(UserWarning, match='d_max') as warned:
        layer.load_state_dict(BRN(3, r_max=3).state_dict())
    assert [str(w.message) for w in warned] == [
        'BRN: the d_max of the checkpoint, 0, is taken in place of norm_cfg d_max=5; to keep that, '
        'remove d_max from the file'
    ]
    assert layer.d_max == 0
    BRN(3).load_state_dict(layer.state_dict())  # those of a schedule: no warning


@pytest.mark.parametrize(
    'wrong', [{'r_max': 0.9}, {'r_max': float('inf')}, {'d_max': -1}, {'d_max': '5'}], ids=str
)
def test_wrong_bounds(wrong):
    for kind in (BRN, SyncBRN):
        with pytest.raises(ValueError, match=rf"type='{kind.__name__}'.*{next(iter(wrong))}"):
            kind(4, **wrong)
    with pytest.raises(ValueError, match=f'raise_bounds: {next(iter(wrong))}'):
        raise_bounds(BRN(4), **{'r_max': 1, 'd_max': 0, **wrong})
