"""Derivatives beyond a first backward: of higher order, forward, by torch.func."""

import copy

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad, gradgradcheck
from torch.func import functional_call, grad, hessian, jacrev, jvp, vmap

from normplug.norms import IBN, SN
from normplug.ops import get_backend, set_backend
from tests.cases import CASES, all_cases, built, random_input

SHAPE = (2, 4, 3, 2)
both_modes = pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])


def loss(layer):
    return lambda *args: layer(*args).sigmoid().square().sum()


# Gradients leave out BRN's r and d, so that they are the derivative of no function, unless both are
# clipped, as in sync_brn. tests/norms/test_brn.py has its second derivative. EstBCN's estimates
# have no gradient either.
TWICE = [case for case in CASES if case.name not in ('brn', 'est_bcn')]


@both_modes
@pytest.mark.parametrize('case', TWICE, ids=lambda case: case.name)
def test_gradgradcheck(case, training):
    layer = built(case, 4, torch.float64).train(training)
    names = [name for name, _ in layer.named_parameters()]
    params = [p.detach().clone().requires_grad_() for p in layer.parameters()]

    def function(x, *params):
        # The same statistics at each call: PN normalizes by those of the calls before.
        buffers = {name: buffer.clone() for name, buffer in layer.named_buffers()}
        return functional_call(layer, (dict(zip(names, params, strict=True)), buffers), x)

    x = random_input(SHAPE, torch.float64).requires_grad_()
    assert gradgradcheck(function, (x, *params), check_undefined_grad=False, fast_mode=True)


def penalty(layer, x):
    (g,) = torch.autograd.grad(loss(layer)(x), x, create_graph=True)
    (g.norm() - 1).square().backward()
    return [g.detach(), x.grad, *(p.grad for p in layer.parameters())]


@pytest.fixture(params=['eager', pytest.param('compiled', marks=pytest.mark.slow)])
def _backend(request):
    before = get_backend()
    set_backend(request.param)
    yield
    set_backend(before)


@pytest.mark.parametrize('size', [5, 130])  # by blocks too, from 32768 values on
def test_gradient_penalty_equals_that_of_native_norms(size):
    """IBN of instance norm alone, and of batch norm alone."""
    for ratio, native in ((1, nn.InstanceNorm2d(4, affine=True)), (0, nn.BatchNorm2d(4))):
        x = random_input((2, 4, size, size)).requires_grad_()
        want = penalty(native, x)
        x = random_input((2, 4, size, size)).requires_grad_()
        got = penalty(IBN(4, ratio=ratio), x)
        for own, torchs in zip(got, want, strict=True):
            torch.testing.assert_close(own, torchs, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures('_backend')
def test_a_gradient_to_differentiate_moves_no_running_statistics():
    layer = SN(4)
    x = random_input(SHAPE).requires_grad_()
    y = loss(layer)(x)
    before = layer.running_mean.clone()
    (g,) = torch.autograd.grad(y, x, create_graph=True)
    g.square().sum().backward()
    assert layer.num_batches_tracked == 1
    assert torch.equal(layer.running_mean, before)


def test_a_weight_that_is_made_of_the_input():
    """Its part of the gradient is counted once."""
    layer = SN(4)
    x = random_input(SHAPE).requires_grad_()

    def scaled(x):
        return functional_call(layer, {'weight': x.sum((0, 2, 3))}, x).sigmoid().square().sum()

    (once,) = torch.autograd.grad(scaled(x), x)
    (twice,) = torch.autograd.grad(scaled(x), x, create_graph=True)
    torch.testing.assert_close(twice, once)


@all_cases
def test_transforms_in_evaluation(case):
    layer, x = built(case, 4, torch.float64).eval(), random_input(SHAPE, torch.float64)
    leaf = x.clone().requires_grad_()
    (want,) = torch.autograd.grad(loss(layer)(leaf), leaf)
    torch.testing.assert_close(grad(loss(layer))(x), want)
    _, tangent = jvp(loss(layer), (x,), (x,))
    torch.testing.assert_close(tangent, (want * x).sum())
    torch.testing.assert_close(jacrev(loss(layer))(x), want)
    several = torch.stack([x, x + 1])
    torch.testing.assert_close(vmap(layer)(several)[1], layer(x + 1))
    torch.testing.assert_close(vmap(grad(loss(layer)))(several)[0], want)
    image = x[:1]
    second = torch.autograd.functional.hessian(loss(layer), image)
    torch.testing.assert_close(hessian(loss(layer))(image), second)
    vectorized = torch.autograd.functional.hessian(loss(layer), image, vectorize=True)
    torch.testing.assert_close(vectorized, second)


def test_gradients_of_each_sample_for_the_parameters():
    layer, x = SN(4).eval(), random_input((3, 4, 5, 5))
    params = dict(layer.named_parameters())

    def of_one(params, image):
        return functional_call(layer, params, image[None]).sigmoid().square().sum()

    got = vmap(grad(of_one), (None, 0))(params, x)
    for i in range(3):
        layer.zero_grad()
        loss(layer)(x[i : i + 1]).backward()
        for name, param in layer.named_parameters():
            torch.testing.assert_close(got[name][i], param.grad)


def test_vmap_over_maps_large_enough_for_blocks():
    layer, x = SN(4).eval(), random_input((2, 4, 80, 80))
    torch.testing.assert_close(vmap(layer)(torch.stack([x, x + 1]))[1], layer(x + 1))


def test_an_ensemble_in_training():
    """Stacked parameters and buffers, each member with its own running statistics."""
    layers = [built(CASES[0], 4, seed=seed) for seed in (0, 1)]
    params, buffers = torch.func.stack_module_state(layers)
    x = random_input((2, *SHAPE))
    got = vmap(lambda p, b, x: functional_call(layers[0], (p, b), x))(params, buffers, x)
    for i, layer in enumerate(layers):
        torch.testing.assert_close(got[i], layer(x[i]))
        torch.testing.assert_close(buffers['running_var'][i], layer.running_var)


@all_cases
def test_forward_mode_in_training(case):
    layer, x = built(case, 4, torch.float64), random_input(SHAPE, torch.float64)
    leaf = x.clone().requires_grad_()
    before = copy.deepcopy(layer.state_dict())
    (want,) = torch.autograd.grad(loss(layer)(leaf), leaf)
    layer.load_state_dict(before)  # by which PN normalizes
    counts = [b for name, b in layer.named_buffers() if name == 'num_batches_tracked']
    with forward_ad.dual_level():
        y = loss(layer)(forward_ad.make_dual(x, x))
        torch.testing.assert_close(forward_ad.unpack_dual(y).tangent, (want * x).sum())
        for buffer in layer.buffers():
            assert forward_ad.unpack_dual(buffer).tangent is None
    assert all(count == 1 for count in counts)


def test_a_transform_in_training_takes_running_statistics_as_arguments_only():
    """As torch's batch norm."""
    layer, x = SN(4), random_input(SHAPE)
    with pytest.raises(RuntimeError, match='mutate a captured Tensor'):
        grad(loss(layer))(x)
    assert layer.num_batches_tracked == 0

    def function(x, buffers):
        return functional_call(layer, buffers, x).sigmoid().square().sum(), buffers

    buffers = {name: b.clone() for name, b in layer.named_buffers()}
    _, moved = grad(lambda x: function(x, {n: b + 0 for n, b in buffers.items()}), has_aux=True)(x)
    layer(x)
    torch.testing.assert_close(moved, dict(layer.named_buffers()))
