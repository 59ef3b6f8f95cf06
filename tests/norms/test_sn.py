"""Switchable Normalization: equivalences, logits, released statistics."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normplug import SN
from tests.cases import random_input

ONE_HOT = 1e4


def one_hot(layer, chosen):
    logits = torch.zeros(len(layer.normalizers))
    logits[layer.normalizers.index(chosen)] = ONE_HOT
    with torch.no_grad():
        layer.mean_weight.copy_(logits)
        layer.var_weight.copy_(logits)
        layer.weight.uniform_(0.5, 1.5)
        layer.bias.normal_()
    return layer


@pytest.mark.parametrize('shape', [(3, 6, 7), (3, 6, 5, 4), (2, 6, 2, 3, 4)])
@pytest.mark.parametrize('chosen', ['in', 'ln', 'bn'])
def test_one_hot_ratios_are_the_normalizer_itself(chosen, shape):
    layer = one_hot(SN(6).double(), chosen)
    ours, native = (random_input(shape, torch.float64).requires_grad_() for _ in range(2))
    y = layer(ours)
    if chosen == 'in':
        want = F.instance_norm(native, weight=layer.weight, bias=layer.bias)
    elif chosen == 'ln':
        want = F.group_norm(native, 1, layer.weight, layer.bias)
    else:
        want = F.batch_norm(native, None, None, layer.weight, layer.bias, training=True)
    torch.testing.assert_close(y, want)
    dy = random_input(shape, torch.float64, seed=4)
    (dx,) = torch.autograd.grad(y, ours, dy)
    (native_dx,) = torch.autograd.grad(want, native, dy)
    torch.testing.assert_close(dx, native_dx)


def test_one_hot_bn_is_batch_norm_in_eval_too():
    layer = one_hot(SN(6), 'bn')
    native = nn.BatchNorm2d(6)
    native.load_state_dict(layer.state_dict(), strict=False)
    for seed in range(4):
        x = random_input((2, 6, 3, 5), seed=seed)
        torch.testing.assert_close(layer(x), native(x))
    torch.testing.assert_close(layer.eval()(x), native.eval()(x))


def test_equals_the_formula_written_out():
    layer = SN(5).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    x = random_input((3, 5, 4, 6), torch.float64)
    axes = {'in': (2, 3), 'ln': (1, 2, 3), 'bn': (0, 2, 3)}
    mean = sum(
        w * x.mean(dims, keepdim=True)
        for w, dims in zip(layer.mean_weight.softmax(0), axes.values(), strict=True)
    )
    var = sum(
        w * x.var(dims, correction=0, keepdim=True)
        for w, dims in zip(layer.var_weight.softmax(0), axes.values(), strict=True)
    )
    gamma, beta = (p.reshape(1, 5, 1, 1) for p in (layer.weight, layer.bias))
    torch.testing.assert_close(layer(x), (x - mean) / (var + 1e-5).sqrt() * gamma + beta)


@pytest.mark.parametrize(
    ('options', 'normalizers'),
    [
        ({}, ('in', 'ln', 'bn')),
        ({'using_bn': False}, ('in', 'ln')),
        ({'using_in': False}, ('ln', 'bn')),
        ({'using_in': False, 'using_bn': False}, ('ln',)),
    ],
)
def test_logits_are_in_the_released_order(options, normalizers):
    layer = SN(4, **options)
    assert layer.normalizers == normalizers
    assert layer.mean_weight.shape == layer.var_weight.shape == (len(normalizers),)
    mean_ratios, var_ratios = layer.ratios()
    assert torch.equal(mean_ratios, var_ratios)
    torch.testing.assert_close(mean_ratios, torch.full_like(mean_ratios, 1 / len(normalizers)))


def test_without_bn_nothing_depends_on_the_batch():
    layer = SN(4, using_bn=False)
    x = random_input((3, 4, 5, 5))
    torch.testing.assert_close(layer(x)[:1], layer(x[:1]))
    torch.testing.assert_close(layer.eval()(x), layer.train()(x))
    assert list(layer.buffers()) == []


def test_logit_init_bn_starts_as_batch_norm():
    layer, native = SN(8, logit_init='bn'), nn.BatchNorm2d(8)
    x = random_input((4, 8, 6, 6))
    assert layer.ratios()[0][2] > 0.99
    assert (layer(x) - native(x)).abs().max() < 0.05
    uniform = SN(8)
    assert (uniform(x) - native(x)).abs().max() > 0.05


@pytest.mark.parametrize('logit_init', ['gn', 'BN', None])
def test_wrong_logit_init(logit_init):
    with pytest.raises(ValueError, match="logit_init must be 'uniform' or one of"):
        SN(4, logit_init=logit_init)


def test_logit_init_of_an_unused_normalizer():
    with pytest.raises(ValueError, match=r"logit_init must be .* got 'bn'"):
        SN(4, using_bn=False, logit_init='bn')


@pytest.mark.parametrize('momentum', [-0.1, 1.5])
def test_momentum_is_pytorchs(momentum):
    with pytest.raises(ValueError, match='weight of the new batch'):
        SN(4, momentum=momentum)


def test_released_statistics_of_one_pixel_are_finite():
    """Where the released layer divides by zero (its issue 5), ours divides by one."""
    layer = SN(4, released_statistics=True)
    assert torch.isfinite(layer(random_input((2, 4, 1, 1)))).all()
