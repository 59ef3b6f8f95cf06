"""Pooling and merging against moments of the data itself."""

import pytest
import torch

from normplug.stats import Moments, merge, mix, pool

F64 = torch.float64


def moments_of(x, dims):
    var, mean = torch.var_mean(x, dims, correction=0)
    return Moments(mean, var)


@pytest.mark.parametrize(('dim', 'dims'), [(0, (0, 2)), (1, (1, 2))])
def test_pool_is_the_moments_of_the_union(dim, dims):
    x = torch.randn(3, 4, 6, dtype=F64)
    pooled = pool(moments_of(x, (2,)), dim)
    torch.testing.assert_close(pooled, moments_of(x, dims))


def test_merge_is_the_moments_of_the_union_of_unequal_sets():
    sets = [torch.randn(n, 4, dtype=F64) * (n + 1) + n for n in (1, 5, 2)]
    rows = [moments_of(values, (0,)) for values in sets]
    empty = Moments(torch.full((4,), 7.0, dtype=F64), torch.ones(4, dtype=F64))
    stacked = Moments(*(torch.stack(part) for part in zip(*rows, empty, strict=True)))
    merged, total = merge(stacked, torch.tensor([1.0, 5.0, 2.0, 0.0], dtype=F64))
    torch.testing.assert_close(merged, moments_of(torch.cat(sets), (0,)))
    assert total == 8


def test_merge_of_nothing_is_zero():
    merged, total = merge(Moments(torch.ones(2, 3), torch.ones(2, 3)), torch.zeros(2))
    assert total == 0
    assert torch.equal(merged.mean, torch.zeros(3))
    assert torch.equal(merged.var, torch.zeros(3))


@pytest.mark.parametrize('ratio', [1e3, 1e4])
def test_pooled_variance_survives_a_large_mean(ratio):
    """E[x²] − E[x]² is 16 % wrong at 1e3 in float32, and negative at 1e4."""
    x = torch.randn(4, 64, 1024, dtype=F64) + ratio
    exact = moments_of(x, (0, 2))
    instance = Moments(*(part.float() for part in moments_of(x, (2,))))
    pooled = pool(instance, 0)
    assert (pooled.var / exact.var - 1).abs().max() < 1e-4
    textbook = x.float().square().mean((0, 2)) - x.float().mean((0, 2)).square()
    assert (textbook / exact.var - 1).abs().max() > 1e-2


def test_pooled_mean_is_no_sum_of_large_values():
    """One rounding of the result, beside those of what is pooled."""
    instance = Moments(1e4 + torch.randn(4096, 8), torch.ones(4096, 8))
    want = instance.mean.double().mean(0)
    assert (pool(instance, 0).mean - want).abs().max() <= 0.51 * 2**-10  # a step of float32 there


def test_mix_uses_separate_ratios():
    parts = [Moments(torch.tensor([1.0]), torch.tensor([2.0]))] * 2
    mixed = mix(parts, torch.tensor([0.5, 0.5]), torch.tensor([1.0, 2.0]))
    assert mixed.mean.item() == 1
    assert mixed.var.item() == 6


def test_ratios_of_another_number_of_parts_are_refused():
    part = Moments(torch.ones(2, 3), torch.ones(2, 3))
    with pytest.raises(ValueError, match='3 and 2 ratios of 2 moments'):
        mix([part, part], torch.full((3,), 1 / 3), torch.full((2,), 0.5))
