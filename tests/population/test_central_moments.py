"""Moments over batches, against numpy's of all values at once."""

import numpy as np
import pytest
import torch

from normplug.population.central_moments import CentralMoments, central_moments, merge_moments
from tests.cases import random_input

SIZES = [5, 1, 8]


def skewed(images, seed=3):
    """Values (N, 3, 4, 5) that are not symmetric, far from 0."""
    return random_input((images, 3, 4, 5), torch.float64, seed).exp() + 50


def by_numpy(x):
    values = np.moveaxis(x.numpy(), 1, 0).reshape(x.shape[1], -1)
    mean = values.mean(1)
    powers = [((values - mean[:, None]) ** k).mean(1) for k in (2, 3, 4)]
    count = np.full(x.shape[1], values.shape[1])
    return [torch.from_numpy(np.asarray(t, np.float64)) for t in (count, mean, *powers)]


def test_one_input():
    x = skewed(7)
    for got, want in zip(central_moments(x), by_numpy(x), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=0)


@pytest.mark.parametrize('nested', [False, True])
def test_the_union_of_unequal_batches_and_an_empty_one(nested):
    x = skewed(sum(SIZES))
    parts = [central_moments(part) for part in (*x.split(SIZES), x[:0])]
    merged = merge_moments(parts)
    if nested:
        merged = merge_moments([merge_moments([parts[3], parts[0]]), merge_moments(parts[1:3])])
    for got, want in zip(merged, by_numpy(x), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=0)
    _, _, second, _, fourth = by_numpy(x)
    torch.testing.assert_close(merged.kurtosis(), fourth / second**2 - 3, rtol=1e-9, atol=0)
    assert (merged.kurtosis() > 1).all()


@pytest.mark.parametrize('scale', [1e-14, 1e-6, 1e12])
def test_float32_of_any_scale(scale):
    x = skewed(6) - 50
    got = central_moments((x * scale).float())
    torch.testing.assert_close(got.kurtosis(), central_moments(x).kurtosis(), rtol=1e-4, atol=0)
    torch.testing.assert_close(got.third, central_moments(x).third * scale**3, rtol=1e-4, atol=0)


def test_no_values_and_a_constant_channel():
    empty = central_moments(torch.zeros(0, 3, 4, 5))
    for got, want in zip(empty, CentralMoments.none(3, torch.zeros(1)), strict=True):
        assert torch.equal(got, want)
    assert torch.equal(empty.kurtosis(), torch.zeros(3, dtype=torch.float64))
    x = skewed(4)
    x[:, 1] = 7.0
    kurtosis = central_moments(x).kurtosis()
    assert kurtosis[1] == 0
    assert (kurtosis[[0, 2]] != 0).all()


@pytest.mark.parametrize('value', [0.7, -40.1, 0.0])
def test_a_constant_channel_in_float32(value):
    """The means of unequal batches differ by rounding; ρ of that was 4.5."""
    parts = [torch.full((n, 1, 7, 9), value) for n in (3, 5, 8, 13)]
    merged = merge_moments([central_moments(part) for part in parts])
    assert merged.kurtosis() == 0
    assert merged.is_constant().all()


def test_a_channel_that_varies_little_is_not_constant():
    x = 0.7 + 1e-5 * torch.randn(4000, 1, generator=torch.Generator().manual_seed(0)).double()
    assert not central_moments(x).is_constant().any()
    assert central_moments(x).kurtosis().abs() < 0.3


def test_a_coin_has_the_least_kurtosis():
    x = torch.tensor([0.0, 1.0]).repeat(50).view(100, 1)
    assert central_moments(x).kurtosis().item() == -2


def test_half_precision_is_not_where_powers_are_taken():
    x = (40 * torch.randn(64, 2, 8, 8)).half()
    for got, want in zip(central_moments(x), by_numpy(x.double()), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=2e-2)
