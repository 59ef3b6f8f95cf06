"""The moments that activations and pools make, against quadrature and Monte-Carlo."""

from math import pi, sqrt

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal

from normplug.kalman.elementwise import rectified, transformed
from normplug.kalman.states import Activated, Pooled, Posterior, State, Window
from normplug.stats import Moments
from tests.kalman.sampling import assert_in_standard_errors, drawn, extremes

# From two standard deviations below zero: of rarer values, few draws have any.
SPREAD = Moments(torch.linspace(-2, 3, 13).double(), torch.linspace(1, 0.3, 13).double().square())


def squares(x, mean):
    return (x - mean).square()


def test_relu_against_samples():
    x = drawn(SPREAD, (), 200_000).relu()
    got = rectified(SPREAD)
    assert_in_standard_errors(got.mean, x)
    assert_in_standard_errors(got.var, squares(x, got.mean))


def leaky(gaussian, slope):
    """E max(X, aX) = a m + (1 − a) E X⁺, and of the square a² E X² + (1 − a²) E (X⁺)²."""
    m, var = gaussian
    s, normal = var.sqrt(), Normal(0.0, 1.0)
    z = m / s
    phi, above = torch.exp(-z.square() / 2) / sqrt(2 * pi), normal.cdf(z)
    positive = m * above + s * phi
    square = (m.square() + var) * above + m * s * phi
    mean = slope * m + (1 - slope) * positive
    return Moments(mean, slope**2 * (m.square() + var) + (1 - slope**2) * square - mean.square())


@pytest.mark.parametrize('slope', [0.01, 0.2, 0.7])
def test_leaky_relu_against_its_closed_form(slope):
    got = transformed(SPREAD, lambda x: F.leaky_relu(x, slope))
    want = leaky(SPREAD, slope)
    # The trapezoidal rule at a kink: h² / 8 times the jump of the slope times the density.
    bound = (16 / 512) ** 2 / 8 * 0.4 * (1 - slope) * SPREAD.var.sqrt()
    assert ((got.mean - want.mean).abs() <= bound).all()
    assert ((got.var - want.var).abs() <= 4 * bound * (SPREAD.mean.abs() + SPREAD.var.sqrt())).all()


@pytest.mark.parametrize('function', [F.silu, torch.tanh, F.gelu, F.hardtanh, F.elu])
def test_activations_against_samples(function):
    x = function(drawn(SPREAD, (), 200_000))
    got = transformed(SPREAD, function)
    assert_in_standard_errors(got.mean, x)
    assert_in_standard_errors(got.var, squares(x, got.mean))


POOLS = {
    'max': (nn.MaxPool2d(2), False),
    'max after relu': (nn.MaxPool2d(2), True),
    'max, window 3': (nn.MaxPool2d(3, 2), True),
    'max, not square': (nn.MaxPool2d((1, 3), (2, 1)), True),
    'max, dilation': (nn.MaxPool2d(2, 1, dilation=2), True),
    'average': (nn.AvgPool2d(2), False),
    'average after relu': (nn.AvgPool2d(3, 2), True),
    'max, padded': (nn.MaxPool2d(3, 2, 1), True),
    'max, ceil': (nn.MaxPool2d((2, 3), (3, 2), ceil_mode=True), False),
    'average, padded': (nn.AvgPool2d(3, 2, 1), True),
    'average, not of padding': (nn.AvgPool2d(3, 1, 1, count_include_pad=False), True),
}


@pytest.mark.parametrize('name', POOLS)
def test_pooling_against_samples(name):
    pool, relu = POOLS[name]
    leaf = Posterior('before')
    below = Activated(leaf, F.relu) if relu else leaf
    dilation, counts_padding = (
        getattr(pool, key, default)
        for key, default in (('dilation', 1), ('count_include_pad', True))
    )
    options = [
        t if isinstance(t, tuple) else (t, t)
        for t in (pool.kernel_size, pool.stride, pool.padding, dilation)
    ]
    function = F.max_pool2d if name.startswith('max') else F.avg_pool2d
    node = Pooled(below, function, Window(*options, pool.ceil_mode, counts_padding))
    size = (7, 8)
    leaf.set(State(SPREAD, size))
    x = drawn(SPREAD, size, 4000)
    y = pool(x.relu() if relu else x)
    got, got_size = node.state()
    assert got_size == y.shape[2:]
    assert_in_standard_errors(got.mean, y.flatten(2).mean(-1))
    # Neighbouring windows share values: their mean is one draw, not each.
    assert_in_standard_errors(got.var, squares(y, got.mean[..., None, None]).flatten(2).mean(-1))


FUNCTIONS = {
    'rectified': rectified,
    'leaky_relu': lambda t: transformed(t, F.leaky_relu),
    'silu': lambda t: transformed(t, F.silu),
    'max': lambda t: transformed(t, window=9),
    'max after relu': lambda t: transformed(t, F.relu, 4),
}
all_functions = pytest.mark.parametrize('function', FUNCTIONS.values(), ids=FUNCTIONS)


@all_functions
def test_extremes_are_finite(function):
    given = Moments(*(t.requires_grad_() for t in extremes()))
    got = function(given)
    assert all(t.isfinite().all() for t in got)
    assert (got.var >= 0).all()
    grads = torch.autograd.grad(got, given, [torch.randn_like(t) for t in got])
    assert all(t.isfinite().all() for t in grads)


def test_constants():
    """No variance: the activation of the mean, with none either."""
    mean = torch.tensor([-2.0, -0.5, 0.5, 3.0]).double()
    given = Moments(mean, torch.zeros(4).double())
    for function, want in ((rectified, F.relu), (FUNCTIONS['leaky_relu'], F.leaky_relu)):
        got = function(given)
        torch.testing.assert_close(got, Moments(want(mean), given.var), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('mean', [10.0, 1e3, 1e6])
def test_relu_far_above_zero_is_the_identity(mean):
    given = Moments(torch.tensor([mean]).double(), torch.tensor([0.7]).double())
    torch.testing.assert_close(rectified(given), given, rtol=1e-10, atol=0)


@all_functions
def test_gradients(function):
    given = [torch.tensor(t).double().requires_grad_() for t in ([-2.3, 0.4, 1.9], [0.3, 1.1, 2.7])]
    assert torch.autograd.gradcheck(lambda *t: tuple(function(Moments(*t))), given)


def test_gradients_through_a_kink():
    """Of the quadrature against those of the closed form, to half a step times the density."""
    m, var = (t.detach().clone().requires_grad_() for t in SPREAD)
    for i in (0, 1):
        got, want = (
            torch.autograd.grad(f(Moments(m, var))[i].sum(), (m, var))
            for f in (lambda t: transformed(t, F.relu), rectified)
        )
        scale = 1 if i == 0 else 2 * (SPREAD.mean.abs() + SPREAD.var.sqrt())
        for g, w, s in zip(got, want, (1, 1 / SPREAD.var.sqrt()), strict=True):
            assert ((g - w).abs() <= 16 / 512 * 0.4 * scale * s).all()


def test_gradients_of_a_relu_at_zero():
    """Where β starts, with state='affine'."""
    given = [torch.tensor([t]).double().requires_grad_() for t in (0.0, 1.3)]
    assert torch.autograd.gradcheck(lambda *t: tuple(rectified(Moments(*t))), given)
