"""FRN against its formula written out and the released layer's outputs."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call

from normplug.norms import FRN
from tests.cases import TOLERANCE, assert_same, by_formula, random_input, run
from tests.norms.pn_cases import EXACT, SHAPE, by_channel
from tests.test_golden import load


def randomized(**options):
    layer = FRN(3, **options).double()
    for p in layer.parameters():
        nn.init.normal_(p)
    return layer


def transcribed(layer, x):
    eps = layer.eps + layer.eps_l.abs() if layer.learned_eps else layer.eps
    y = x / (x.square().mean((2, 3), keepdim=True) + eps).sqrt()
    return by_channel(layer.weight) * y + by_channel(layer.bias)


@pytest.mark.parametrize('learned_eps', [False, True])
@pytest.mark.parametrize('shape', [SHAPE, (4, 3, 1, 1)], ids=str)
def test_the_formula(shape, learned_eps):
    layer = randomized(learned_eps=learned_eps)
    x, dy = (random_input(shape, torch.float64, seed) for seed in (0, 5))
    want = by_formula(layer, transcribed, x, dy)
    for training in (True, False):
        assert_same(run(layer.train(training), x, dy), want, EXACT)


@pytest.mark.parametrize(('name', 'learned_eps'), [('frn_2d', False), ('frn_learned_eps_2d', True)])
def test_released_layer(name, learned_eps):
    """Its parameters are (1, 1, 1, C), of another layout; its own eps is 1e-6 too."""
    golden, layer = load(name), FRN(8, learned_eps=learned_eps)
    released = {'weight': 'gamma', 'bias': 'beta', 'eps_l': 'learned_epsilon'}
    with torch.no_grad():
        for own, param in layer.named_parameters():
            param.copy_(golden[f'before.{released[own]}'].flatten())
    for step in range(3):
        want = {key: golden[key][step] for key in ('y', 'dx')}
        for own, _ in layer.named_parameters():
            want[f'grad.{own}'] = golden[f'grad.{released[own]}'][step].flatten()
        got = run(layer, golden['x'][step], golden['dy'][step])
        assert_same(got, want, TOLERANCE[torch.float32])


def test_gradients():
    layer, x = randomized(learned_eps=True), random_input(SHAPE, torch.float64).requires_grad_()
    names, values = zip(*layer.named_parameters(), strict=True)

    def function(x, *values):
        return functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert gradcheck(function, (x, *values))


def test_a_single_pixel_keeps_its_size_by_the_learned_eps():
    """Without it nothing but the sign is left."""
    x = torch.tensor([0.1, -2.0]).view(2, 1, 1, 1)
    torch.testing.assert_close(FRN(1, eps=1e-12)(x), x.sign())
    layer = FRN(1, eps=1e-12, learned_eps=True)
    nn.init.constant_(layer.eps_l, -4.0)
    torch.testing.assert_close(layer(x), x / (x.square() + 4).sqrt())


def test_wrong_option():
    with pytest.raises(ValueError, match=r"type='FRN'.*learned_eps must be True or False, got 1"):
        FRN(4, learned_eps=1)
