"""Devices without float64, for which a dispatch mode stands in that refuses it."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from normplug import precision
from normplug.kalman import link_kalman
from normplug.norms import KN, SN
from tests.cases import TOLERANCE, all_cases, all_shapes, assert_same, built, random_input, run


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


def test_what_each_device_has():
    assert precision.small_dtype(torch.zeros(1)) == torch.float64
    assert not precision._has_float64(torch.device('mps'))
    assert precision._has_float64(torch.device('cuda', 0))


def test_a_kalman_chain_says_what_it_needs():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), KN(4), nn.Conv2d(4, 4, 1), KN(4))
    x = random_input((2, 3, 5, 5))
    link_kalman(net, lambda: net(x))
    with NoFloat64(), pytest.raises(ValueError, match=r"type='KN'.*float64, which cpu does not"):
        net(x)
