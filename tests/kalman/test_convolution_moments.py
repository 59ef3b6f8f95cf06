"""Moments of a convolution's output, against exact sums and Monte-Carlo."""

from math import sqrt
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from normplug.kalman.convolution import convolved, convolved_sample, output_size
from normplug.stats import Moments
from tests.kalman import transcription
from tests.kalman.sampling import (
    DRAWS,
    STANDARD_ERRORS,
    assert_in_standard_errors,
    drawn,
    extremes,
)

# Kernel, size of the map, options: 4 channels in, 4 out.
CONVOLUTIONS = {
    '4x4': (3, (4, 4), dict(padding=1)),
    '7x7': (3, (7, 7), dict(padding=1)),
    '14x14': (3, (14, 14), dict(padding=1)),
    'odd, not square': (3, (5, 9), dict(padding=1)),
    'pointwise': (1, (4, 5), {}),
    'no padding': (3, (6, 5), {}),
    'stride': (3, (9, 8), dict(padding=1, stride=2)),
    'stride without overlap': (2, (7, 8), dict(stride=3)),
    'dilation': (3, (7, 9), dict(padding=2, dilation=2)),
    'bias': (3, (5, 5), dict(padding=1, bias=True)),
    'groups': (3, (5, 6), dict(padding=1, groups=2)),
    'depthwise': (3, (4, 4), dict(padding=1, groups=4)),
    'wide padding': (3, (4, 4), dict(padding=3)),
    'kernel beyond half the map': (5, (6, 7), dict(padding=2)),
    'kernel larger than the map': (7, (4, 5), dict(padding=3)),
    'one position': (4, (4, 4), dict(bias=True)),
    'same': (3, (5, 6), dict(padding='same')),
    'same, even kernel': (4, (6, 5), dict(padding='same', dilation=2)),
    'valid': (3, (5, 6), dict(padding='valid')),
    'reflect': (3, (5, 6), dict(padding=2, padding_mode='reflect')),
    'replicate': (3, (4, 4), dict(padding=2, padding_mode='replicate')),
    'circular': (3, (4, 5), dict(padding=1, padding_mode='circular')),
    'circular, kernel larger than the map': (
        *(5, (4, 4)),
        dict(padding=3, padding_mode='circular'),
    ),
    'reflect, stride, dilation, groups': (
        *(3, (9, 8)),
        dict(padding=3, stride=2, dilation=2, groups=2, bias=True, padding_mode='reflect'),
    ),
    'replicate, same': (3, (5, 4), dict(padding='same', padding_mode='replicate')),
    'not square at all': ((1, 3), (5, 7), dict(padding=(2, 0), stride=(2, 1))),
    '1d': (3, (11,), dict(padding=1, stride=2)),
    '1d, circular': (3, (6,), dict(padding=2, padding_mode='circular')),
    '3d': ((2, 3, 2), (3, 4, 5), dict(padding=(1, 1, 0), bias=True)),
    '3d, replicate': (3, (3, 3, 4), dict(padding=1, padding_mode='replicate', groups=2)),
}
all_convolutions = pytest.mark.parametrize('name', CONVOLUTIONS)


def layer(name, dtype=torch.float64):
    """The convolution, low-pass in half of its channels, and the size of the map."""
    kernel, size, options = CONVOLUTIONS[name]
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(size) - 1]
    conv = kind(4, 4, kernel, **({'bias': False} | options)).double()
    with torch.no_grad():
        conv.weight[::2] = conv.weight[::2].abs()
    return conv.to(dtype), size


def moments():
    return Moments(torch.randn(4).double(), torch.rand(4).double() + 0.2)


@all_convolutions
def test_convolution_against_sampled_maps(name):
    conv, size = layer(name)
    gaussian = moments()
    with torch.no_grad():
        y = conv(drawn(gaussian, size))
        got = convolved(conv, gaussian, size)
    assert output_size(conv, size) == y.shape[2:]
    y = y.flatten(2)
    assert_in_standard_errors(got.mean, y.mean(-1))
    assert_in_standard_errors(got.var, y.var(-1, correction=0))


@all_convolutions
def test_convolution_against_its_matrix(name):
    conv, size = layer(name)
    gaussian = moments()
    got = convolved(conv, gaussian, size)
    bias = None if conv.bias is None else conv.bias.detach().numpy()
    matrix, _ = transcription.conv_matrix(conv.weight.detach().numpy(), size, vars(conv))
    mean, var = transcription.expected(matrix, bias, [t.numpy() for t in gaussian])
    np.testing.assert_allclose(got.mean.detach(), mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(got.var.detach(), var, rtol=1e-12, atol=1e-12)


def test_sampling_tells_the_limit_of_large_maps_apart():
    """The control: that many draws are enough to see the terms that this limit leaves out."""
    conv, size = layer('4x4')
    gaussian = moments()
    limit = torch.einsum('ocij,c->o', conv.weight.square(), gaussian.var)
    with torch.no_grad():
        draws = conv(drawn(gaussian, size)).flatten(2).var(-1, correction=0)
    errors = (limit - draws.mean(0)).abs() / (draws.std(0) / sqrt(DRAWS))
    assert (errors > 2 * STANDARD_ERRORS).any()


@all_convolutions
def test_gradients_through_a_convolution(name):
    conv, size = layer(name)
    gaussian = moments()

    def function(mean, var, weight, bias=None):
        twin = SimpleNamespace(**vars(conv) | dict(weight=weight, bias=bias))
        return tuple(convolved(twin, Moments(mean, var), size))

    inputs = [*(t.requires_grad_() for t in gaussian), *conv.parameters()]
    if name == 'one position':  # a constant variance of 0, where the slope is undefined
        assert torch.allclose(function(*inputs)[1], torch.zeros(4).double(), atol=1e-12)
        inner, function = function, lambda *args: inner(*args)[0]
    assert torch.autograd.gradcheck(function, inputs)
    # As a gradient penalty needs them.
    assert torch.autograd.gradgradcheck(function, inputs, check_undefined_grad=False)


def test_convolution_of_many_groups_is_that_of_each():
    conv, size = layer('groups')
    batch = Moments(torch.randn(3, 4).double(), torch.rand(3, 4).double())
    got = convolved(conv, batch, size)
    for i in range(3):
        want = convolved(conv, Moments(batch.mean[i], batch.var[i]), size)
        torch.testing.assert_close(Moments(got.mean[i], got.var[i]), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('name', ['4x4', 'stride', 'replicate', 'groups'])
def test_convolution_of_less_precise_weights(name, dtype):
    """The weights are as they are; the sums over them are float32."""
    conv, size = layer(name, dtype)
    gaussian = moments()
    got = convolved(conv, gaussian, size)
    want = convolved(conv.double(), gaussian, size)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_a_sample_is_the_convolution_of_the_map():
    conv, size = layer('bias')
    x = torch.randn(3, 4, *size).double()
    y = conv(x).flatten(2)
    got = convolved_sample(conv, x)
    torch.testing.assert_close(got.mean, y.mean(2), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(got.var, y.var(2, correction=0), rtol=1e-12, atol=1e-12)


def test_convolution_of_extremes_is_finite():
    for mean, var in zip(*extremes(), strict=True):
        conv, size = layer('4x4')
        given = Moments(*(t.expand(4).clone().requires_grad_() for t in (mean, var)))
        got = convolved(conv, given, size)
        sum(t.sum() for t in got).backward()
        tensors = [*got, *(t.grad for t in (*given, conv.weight))]
        assert all(t.isfinite().all() for t in tensors), (mean, var)
