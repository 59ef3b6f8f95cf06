"""Devices without float64, for which a dispatch mode refuses it; rules in float32, as on a GPU."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from normplug import precision
from normplug.kalman import link_kalman
from normplug.norms import IBN, KN, SN, SSN, GhostBN, SyncSN
from normplug.norms.ssn import set_radius
from normplug.ops import normalize_naive
from tests.cases import (
    TOLERANCE,
    Case,
    all_cases,
    all_shapes,
    assert_same,
    built,
    random_input,
    run,
    ssn,
)


class NoFloat64(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, torch.Tensor) and t.dtype == torch.float64:
                raise TypeError(f'{func}: float64')
        return out


@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
@all_cases
@all_shapes
def test_statistics_in_float32(case, shape, training):
    x, dy = random_input(shape), random_input(shape, seed=2)
    layer, twin = (built(case, shape[1]).train(training) for _ in range(2))
    with NoFloat64():
        got = run(layer, x, dy)
    want = run(twin, x, dy)
    one_pixel = x[0, 0].numel() == 1
    # Five times the usual: the ratios' gradients are differences, and rounded term by term here.
    tolerance = 5 * TOLERANCE[torch.float32]
    assert_same(got, want, tolerance, dx=layer.eps**-0.5 if one_pixel else 1)


@all_cases
def test_far_from_zero(case):
    """What is lost is the rounding of means, as in torch's own norms: some 2^-24 of |mean|/std."""
    layer, twin = (built(case, 8) for _ in range(2))
    x = random_input((2, 8, 64, 64)) + 1000
    with NoFloat64():
        y = layer(x)
    want = twin(x)
    assert (y - want).abs().max() < 8 * 2**-24 * 1000 * want.abs().max()


def test_an_empty_batch():
    x = torch.zeros(0, 4, 7, 7)
    with NoFloat64():
        assert run(SN(4), x, x)['y'].shape == x.shape


# 1024 boxes; many channels; a map that is odd in every axis.
FAR_SHAPES = [(1024, 4, 3, 3), (2, 512, 5, 6), (3, 37, 13, 11)]
FAR_CASES = [
    Case('sn', SN),
    Case('sn_no_bn', lambda c: SN(c, using_bn=False)),
    Case('ssn', lambda c: ssn(c, 0.1)),
    Case('ibn', IBN),
    Case('ghost_bn', GhostBN),
    Case('ghost_bn_groups', lambda c: GhostBN(c, virtual_batch_size=1)),
]


@pytest.mark.parametrize('ratio', [0, 1e3, 1e4])
@pytest.mark.parametrize('shape', FAR_SHAPES, ids=lambda s: 'x'.join(map(str, s)))
@pytest.mark.parametrize('case', FAR_CASES, ids=lambda case: case.name)
def test_a_rule_in_float32_is_enough(rules_in_float32, case, shape, ratio):
    """All values are `ratio` standard deviations from 0: output and gradients, against float64.

    A mean is rounded by up to 2^-24 of itself; what is a sum over few instances errs by some of
    that. Sums of as large terms would err by a hundred times as much.
    """
    layer = built(case, shape[1])
    if isinstance(layer, SSN):  # ratios that are not decided, nor at the edge of a face
        with torch.no_grad():
            layer.mean_weight.copy_(torch.tensor([0.3, 0.2, 0.4]))
            layer.var_weight.copy_(torch.tensor([0.2, 0.4, 0.3]))
    assert layer.plan(torch.zeros(shape)).dtype == torch.float32
    generator = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(shape, generator=generator) for _ in range(2))
    x += ratio + 0.3 * torch.randn(*shape[:2], 1, 1, generator=generator)
    want = naive(layer, x, dy)
    got = run(layer, x, dy)
    tolerance = TOLERANCE[torch.float32] + 4 * 2**-24 * ratio
    # The gradient of a ratio is a sum over all of x, of both signs.
    size = (x.numel() / 3) ** 0.5
    assert_same(
        {name: got[name] for name in want},
        want,
        tolerance,
        **{'grad.mean_weight': size, 'grad.var_weight': size},
    )


def naive(layer, x, dy):
    layer, x = deepcopy(layer).double(), x.double().requires_grad_()
    y = normalize_naive(x, layer.plan(x), layer.rule_params())
    names, parameters = zip(*layer.named_parameters(), strict=True)
    dx, *grads = torch.autograd.grad(y, (x, *parameters), dy.double())
    names = (f'grad.{name}' for name in names)
    return {'y': y.detach(), 'dx': dx, **dict(zip(names, grads, strict=True))}


def test_ssn_decides_in_float32():
    """Whatever its logits are, unless they are tied."""
    layers = nn.ModuleList(SSN(4) for _ in range(100))
    for index, layer in enumerate(layers):
        scale = 10 ** (index / 25 - 2)
        layer.load_state_dict(
            {'mean_weight': scale * torch.randn(3), 'var_weight': scale * torch.randn(3)}, False
        )
    with NoFloat64():
        for step in range(11):
            set_radius(layers, step / 10)
    for layer in layers:
        for choice, logits in zip(
            (layer.mean_choice, layer.var_choice),
            (layer.mean_weight, layer.var_weight),
            strict=True,
        ):
            assert choice.tolist() == nn.functional.one_hot(logits.argmax(), 3).tolist()


@pytest.mark.parametrize(
    ('device', 'usual', 'exact'),
    [
        ('cpu', torch.float64, torch.float64),
        ('meta', torch.float64, torch.float64),
        ('cuda', torch.float32, torch.float64),
        ('mps', torch.float32, torch.float32),
    ],
)
def test_what_each_device_computes_in(device, usual, exact):
    """Whether or not the machine has such a device."""
    with FakeTensorMode():
        x = torch.empty(1, device=device)
        assert precision.small_dtype(x) == usual
    for dtype in (torch.float32, torch.bfloat16):
        assert precision.small_dtype(x.to(dtype)) == usual
        assert precision.small_dtype(x.to(dtype), exact=True) == exact
    assert precision.small_dtype(x.double()) == torch.float64


@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('case', FAR_CASES, ids=lambda case: case.name)
def test_tensors_without_values_on_a_gpu_are_as_its_own(case, training):
    with FakeTensorMode(), torch.device('cuda'), torch.no_grad():
        layer, x = case.build(4).train(training), torch.empty(2, 4, 5, 5)
        y, plan = layer(x), layer.plan(x)
    assert (y.device.type, y.shape, y.dtype) == ('cuda', x.shape, x.dtype)
    assert plan.dtype == torch.float32


def test_what_ranks_exchange_is_float64(rules_in_float32, monkeypatch):
    layer, x = SyncSN(4), torch.zeros(2, 4, 3)
    assert layer.plan(x).dtype == torch.float32  # one rank
    monkeypatch.setattr(layer, 'reducer', object)
    assert layer.plan(x).dtype == torch.float64
    assert layer.eval().plan(x).dtype == torch.float32


def test_a_kalman_chain_stays_float64(monkeypatch):
    def trained():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 1), KN(4), nn.Conv2d(4, 4, 1), KN(4))
        x = random_input((2, 3, 5, 5))
        link_kalman(net, lambda: net(x))
        return run(net, x, random_input((2, 4, 5, 5)))

    want = trained()
    monkeypatch.setattr(precision, '_IN_FLOAT64', frozenset())
    assert_same(trained(), want, 0)


def test_a_kalman_chain_says_what_it_needs():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), KN(4), nn.Conv2d(4, 4, 1), KN(4))
    x = random_input((2, 3, 5, 5))
    link_kalman(net, lambda: net(x))
    with NoFloat64(), pytest.raises(ValueError, match=r"type='KN'.*float64, which cpu does not"):
        net(x)
