"""The loss of instance selective whitening and its mask, from the formulas written out."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from normplug.isw import correlation, isw_loss, lowest_cluster, sensitive_pairs
from tests.cases import random_input


def by_hand(z, mask):
    """One number after the other."""
    images, channels, height, width = z.shape
    chosen = [(i, j) for i in range(channels) for j in range(channels) if mask[i, j]]
    total = 0.0
    for n, (i, j) in itertools.product(range(images), chosen):
        product = sum(z[n, i, y, x] * z[n, j, y, x] for y in range(height) for x in range(width))
        total += abs(product / (height * width - 1))
    return total / len(chosen) / images


def upper(channels, *pairs):
    mask = torch.zeros(channels, channels, dtype=torch.bool)
    for pair in pairs:
        mask[pair] = True
    return mask


MASK = upper(4, (0, 1), (0, 3), (2, 3))


def test_the_loss_by_hand():
    z = F.instance_norm(random_input((3, 4, 2, 5), torch.float64))
    got = isw_loss(correlation(z), MASK)
    assert got.item() == pytest.approx(by_hand(z.numpy(), MASK), rel=1e-12)


def test_its_derivative():
    x = random_input((2, 4, 3, 3), torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: isw_loss(correlation(F.instance_norm(x)), MASK), (x,))


def test_no_pairs_no_images_no_second_pixel():
    z = random_input((2, 4, 3, 3)).requires_grad_()
    loss = isw_loss(correlation(z), upper(4))
    loss.backward()
    assert loss == 0
    assert not z.grad.any()
    assert isw_loss(correlation(z[:0]), MASK) == 0
    assert torch.isfinite(isw_loss(correlation(z[:, :, :1, :1]), MASK))


def test_the_map_may_be_changed_in_place_and_autocast_rounds_nothing():
    """A ReLU in place follows the norm."""
    x = random_input((2, 4, 3, 3)).requires_grad_()
    want = torch.autograd.grad(isw_loss(correlation(x * 1), MASK), x)[0]
    with torch.autocast('cpu', torch.bfloat16):
        z = x * 1
        psi = correlation(z)
        loss = isw_loss(psi, MASK) + 0 * z.relu_().sum()
    assert psi.dtype == loss.dtype == torch.float32
    assert torch.equal(torch.autograd.grad(loss, x)[0], want)
    assert correlation(x.bfloat16()).dtype == torch.float32


def cost(values):
    return ((values - values.mean()) ** 2).sum()


def brute_force(values, clusters):
    """The largest value of the lowest cluster, over all ways to split the sorted values."""
    values = np.sort(values)
    splits = itertools.combinations(range(1, len(values)), clusters - 1)
    best = min(splits, key=lambda split: sum(map(cost, np.split(values, split))))
    return values[best[0] - 1]


@pytest.mark.parametrize('clusters', [2, 3, 4])
@pytest.mark.parametrize('seed', range(5))
def test_k_means_is_the_best_of_all_splits(clusters, seed):
    generator = np.random.default_rng(seed)
    values = generator.exponential(size=14) ** 3
    assert lowest_cluster(values, clusters) == brute_force(values, clusters)
    # Zeros, as of a triangle, weigh as many as they are.
    values = np.concatenate([np.zeros(10), values[:6]])
    assert lowest_cluster(values, clusters) == brute_force(values, clusters)


def test_k_means_of_fewer_values_than_clusters():
    assert lowest_cluster(np.array([3.0, 1, 3]), 3) == 1
    assert lowest_cluster(np.array([2.0]), 3) == 2


def test_sensitive_pairs_are_above_the_lowest_cluster():
    variance = torch.full((4, 4), 9.0)  # below the diagonal, and on it: not looked at
    above = torch.tensor([0.01, 5.0, 0.02, 1.0, 0.015, 1.1])
    variance[tuple(torch.triu_indices(4, 4, 1))] = above
    want = upper(4, (0, 2), (1, 2), (2, 3))
    assert torch.equal(sensitive_pairs(variance, 3), want)
    assert not sensitive_pairs(torch.zeros(4, 4), 3).any()
    assert not sensitive_pairs(torch.ones(1, 1), 3).any()
