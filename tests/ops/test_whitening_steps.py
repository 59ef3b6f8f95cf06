"""Covariances through the autograd Function: against the plain formula, and what it keeps."""

from functools import partial
from itertools import product

import pytest
import torch
from torch.autograd import gradcheck

from normplug.norms.gw import gw_rule
from normplug.norms.iternorm import iternorm_rule
from normplug.norms.sw import sw_rule
from normplug.ops import Blocks, Plan, normalize, normalize_naive, products, whitening_passes
from normplug.running import Tracked, Tracking
from tests.cases import assert_same, random_input
from tests.ops.test_fused import parameters

OPTIONS = {'eps': 1e-3, 'iterations': 5}
ROOT = tuple(OPTIONS.values())
SW5 = partial(
    sw_rule, sources=('bw', 'iw', 'bn', 'in', 'ln'), released=False, **OPTIONS
)  # of every kind
RULES = {
    'sw': (SW5, 0, Blocks(3), (5, 5)),
    'iternorm': (iternorm_rule, 0, Blocks(2, root=ROOT), ()),
    'gw': (partial(gw_rule, **OPTIONS), None, Blocks(3, 2), ()),
    'one_block': (iternorm_rule, 0, Blocks(6, root=ROOT), ()),
}
all_rules = pytest.mark.parametrize('name', RULES)
SHAPES = [(2, 6, 3, 4), (1, 6, 5, 3), (3, 6, 1, 1), (5, 6, 7), (2, 6, 3, 2, 5), (1, 6, 1, 1)]


def plan_of(name, **more):
    rule, batch_from, blocks, logits = RULES[name]
    return Plan(rule, batch_from, blocks=blocks, **more), (6, 6, *logits)


def results(function, x, plan, params, running=None):
    x = x.clone().requires_grad_()
    params = [p.detach().clone().requires_grad_() for p in params]
    y = function(x, plan, params, running)
    y.backward(random_input(y.shape, y.dtype, seed=5))
    grads = {f'grad.{i}': p.grad for i, p in enumerate(params)}
    return {'y': y.detach(), 'dx': x.grad, **grads}


def ours(*args):
    return normalize(*args).y


@pytest.mark.parametrize('shape', SHAPES, ids=str)
@all_rules
def test_equals_the_naive_formula(name, shape):
    plan, sizes = plan_of(name)
    x, params = random_input(shape, torch.float64), parameters(*sizes)
    # Of single values the covariance is eps: its gradients are sums of terms of 1 / eps.
    assert_same(
        results(ours, x, plan, params), results(normalize_naive, x, plan, params), 1e-11, dx=1e3
    )


@pytest.mark.parametrize('shape', [(0, 6), (0, 6, 7), (0, 6, 3, 4), (2, 6, 0)], ids=str)
def test_no_values(shape):
    plan, sizes = plan_of('gw')
    got = results(ours, torch.empty(shape), plan, parameters(*sizes, dtype=torch.float32))
    assert got['y'].shape == got['dx'].shape == shape
    assert not got['grad.0'].any()


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('values', [1, 6 * 5, 6 * 40, 2 * 6 * 40], ids=str)
@all_rules
def test_pieces_of_every_size(monkeypatch, name, values, layout):
    """Of some pixels of a block, of a block, of an image, of two images."""
    plan, sizes = plan_of(name)
    x = random_input((5, 6, 8, 5), torch.float64).to(memory_format=layout)
    params = parameters(*sizes)
    want = results(normalize_naive, x, plan, params)
    monkeypatch.setattr(whitening_passes, 'values_at_once', lambda: values)
    assert_same(results(ours, x, plan, params), want, 1e-11)


@pytest.mark.skipif(not products._has_linear(), reason='no oneDNN, or no AVX-512')
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('values', [6 * 7, 6 * 40, 3 * 6 * 40], ids=str)
@all_rules
def test_products_by_onednn(monkeypatch, name, values, layout):
    """However small, from -1e3 on: of some pixels or channels, of several blocks or images."""
    plan, sizes = plan_of(name)
    x = (random_input((5, 6, 8, 5)) - 1e3).float().to(memory_format=layout)
    params = [p.detach().float() for p in parameters(*sizes)]
    want = results(normalize_naive, x.double(), plan, [p.double() for p in params])
    called, dense = [], products._dense
    monkeypatch.setattr(products, '_LARGE', 0)
    monkeypatch.setattr(products, '_LARGE_OF_MANY', 0)
    monkeypatch.setattr(products, '_dense', lambda t: called.append(t) or dense(t))
    monkeypatch.setattr(whitening_passes, 'values_at_once', lambda: values)
    assert_same(results(ours, x, plan, params), want, 1e-5)
    assert called


@pytest.mark.parametrize('name', ['sw', 'one_block'])
def test_given_matrices(name):
    plan, sizes = plan_of(name)
    size = plan.blocks.size
    factor = torch.randn(6 // size, size, size, dtype=torch.float64)
    given = Tracked(torch.randn(6).double(), factor @ factor.mT, torch.tensor(0))
    x, params, plan = (
        random_input((2, 6, 3, 4)).double(),
        parameters(*sizes),
        plan._replace(batch_from=None),
    )
    want = results(normalize_naive, x, plan, params, given)
    assert_same(results(ours, x, plan, params, given), want, 1e-11)


@pytest.mark.parametrize('shape', [(2, 6, 3, 2), (3, 6, 1, 1)], ids=str)
@all_rules
def test_gradcheck(name, shape):
    plan, sizes = plan_of(name)
    x = random_input(shape, torch.float64).requires_grad_()
    assert gradcheck(lambda x, *p: normalize(x, plan, p).y, (x, *parameters(*sizes)))


@pytest.mark.parametrize('offset', [1e3, 1e4])
@all_rules
def test_far_from_zero_in_float32(name, offset):
    """E[xxᵀ] − E[x]E[x]ᵀ would be off by 13 % at 1e3, and by more than its value at 1e4."""
    plan, sizes = plan_of(name)
    x = (random_input((2, 6, 40, 30)) + offset).float()
    params = parameters(*sizes)
    single = [p.detach().float() for p in params]
    want = results(normalize_naive, x.double(), plan, [p.double() for p in single])
    assert_same(results(ours, x, plan, single), want, 1e-5)


@all_rules
def test_keeps_only_the_input_and_small_tensors_for_backward(name):
    plan, sizes = plan_of(name)
    x = random_input((2, 6, 16, 16)).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = normalize(x, plan, parameters(*sizes, dtype=torch.float32)).y
    large = [tensor for tensor in kept if tensor.numel() > 2 * 6 * 6]
    assert y.grad_fn is not None
    assert [tensor.data_ptr() for tensor in large] == [x.data_ptr()]


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@all_rules
def test_autocast_does_not_round_the_products(name, dtype):
    plan, sizes = plan_of(name)
    x, params = random_input((2, 6, 5, 4)), parameters(*sizes, dtype=torch.float32)
    want = results(ours, x, plan, params)
    with torch.autocast('cpu', dtype=dtype):
        got = results(ours, x, plan, params)  # and the backward inside, as some do
    for key, value in want.items():
        assert torch.equal(got[key], value), key


@all_rules
def test_batched_gradients(name):
    plan, sizes = plan_of(name)
    x = random_input((2, 6, 5, 4)).requires_grad_()
    y = normalize(x, plan, parameters(*sizes, dtype=torch.float32)).y
    dy = torch.stack([random_input(x.shape, seed=seed) for seed in (2, 3)])
    (batched,) = torch.autograd.grad(y, x, dy, retain_graph=True, is_grads_batched=True)
    for own, each in zip(batched, dy, strict=True):
        torch.testing.assert_close(own, torch.autograd.grad(y, x, each, retain_graph=True)[0])


@pytest.mark.usefixtures('compiled')
@pytest.mark.parametrize('shape', [(2, 6, 9, 7), (3, 6, 20, 30)], ids=str)
@all_rules
def test_layouts_of_x_and_its_gradient(name, shape):
    """Under the compiled backend, one after the other: which runs these steps as they are."""
    plan, sizes = plan_of(name)
    tracking = Tracking(0.1, False) if plan.batch_from is not None else None
    plan = plan._replace(tracking=tracking)
    size = plan.blocks.size
    params = parameters(*sizes, dtype=torch.float32)
    formats = torch.contiguous_format, torch.channels_last
    for of_x, of_dy in product(formats, formats):
        tracked = Tracked(torch.zeros(6), torch.zeros(6 // size, size, size), torch.tensor(0))
        x = random_input(shape).contiguous(memory_format=of_x).requires_grad_()
        dy = random_input(shape, seed=5).contiguous(memory_format=of_dy)
        y = normalize(x, plan, params, tracked).y
        got = torch.autograd.grad(y, [x, *params], dy)
        assert y.stride() == got[0].stride() == x.stride()
        want = normalize_naive(x.double(), plan, [p.double() for p in params])
        grads = torch.autograd.grad(want, [x, *params], dy.double())
        for own, naive in zip((y, *got), (want, *grads), strict=True):
            error = (own - naive).abs().max()
            assert error <= 2e-5 * naive.abs().max(), error
        assert tracked.num_batches == (0 if tracking is None else 1)
