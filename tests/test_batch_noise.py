"""The laws of the noise of batch statistics, against simulation and written out by numpy."""

import numpy as np
import pytest
import torch

from normplug.batch_noise import (
    decay_strength,
    excess_kurtosis,
    jacobian_trace,
    squared_norm,
    std_of_mean,
    std_of_std,
)

# ρ, draws of variance 1.
LAWS = {
    'gaussian': (0.0, lambda rng, n: rng.standard_normal(n)),
    'laplace': (3.0, lambda rng, n: rng.laplace(0, 0.5**0.5, n)),
    'uniform': (-1.2, lambda rng, n: rng.uniform(-(3**0.5), 3**0.5, n)),
}


@pytest.mark.parametrize('law', LAWS)
def test_how_far_batch_statistics_scatter(law):
    """The slide's law of σ_B lacks σ_P²: a factor of 9 here."""
    kurtosis, draw = LAWS[law]
    samples, std = 256, 3.0
    h = std * draw(np.random.default_rng(0), (20000, samples))
    sigma = torch.tensor([std], dtype=torch.float64)
    assert h.mean(1).std() == pytest.approx(std_of_mean(sigma, samples).item(), rel=0.02)
    assert h.std(1).std() == pytest.approx(std_of_std(sigma, kurtosis, samples).item(), rel=0.03)


def test_strength_written_out():
    rng = np.random.default_rng(1)
    fisher, curvature, kurtosis = rng.random(7), rng.random(7), rng.random(7) * 4 - 2
    want = [(kurtosis[c] + 2) * fisher[c] / 8 / 24 + curvature[c] / 48 for c in range(7)]
    got = decay_strength(*(torch.from_numpy(t) for t in (fisher, curvature, kurtosis)), 24)
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64))


def simulated_excess(draw, samples, gamma, batches):
    """E[L(ĥ)] − E[L(h̄)] of a logistic unit, softplus(ĥ) − y ĥ with y ~ Bernoulli(sigmoid(h̄))."""
    rng = np.random.default_rng(2)
    h = draw(rng, (batches, samples))
    noisy = gamma * (h - h.mean(1, keepdims=True)) / h.std(1, keepdims=True)
    clean = gamma * h
    target = 1 / (1 + np.exp(-clean))  # the mean of y

    def loss(z):
        return np.logaddexp(0, z) - target * z

    return (loss(noisy) - loss(clean)).mean(), clean / gamma, target


@pytest.mark.parametrize(
    ('law', 'samples', 'theory', 'tolerance'),
    [
        ('gaussian', 32, 0.0078, 0.06),
        ('laplace', 32, 0.0098, 0.06),
        ('uniform', 32, 0.0066, 0.06),
        ('gaussian', 128, 0.00195, 0.04),
        ('laplace', 128, 0.0025, 0.04),
        ('uniform', 128, 0.0017, 0.04),
    ],
)
def test_the_regularizer_is_the_excess_loss(law, samples, theory, tolerance):
    """To leading order in 1/M; ``theory`` is ζγ² as another program had it."""
    kurtosis, draw = LAWS[law]
    gamma = 1.5
    excess, unit, target = simulated_excess(draw, samples, gamma, 2**21 // samples)
    curvature = target * (1 - target)  # A''; that of a sample's squared gradient, on average
    means = ((curvature * unit**2).mean(), curvature.mean())
    strength = decay_strength(*(torch.tensor([m]) for m in means), kurtosis, samples)
    regularizer = strength.item() * gamma**2
    assert regularizer == pytest.approx(theory, rel=0.04)
    assert excess == pytest.approx(regularizer, rel=tolerance)


def test_a_constant_has_no_kurtosis_and_rounding_goes_no_lower_than_a_coin():
    second = torch.tensor([0.0, 1.0, 2.0])
    fourth = torch.tensor([0.0, 0.999, 20.0])
    assert torch.equal(excess_kurtosis(second, fourth), torch.tensor([0.0, -2.0, 2.0]))


def test_the_jacobian_and_the_norm_of_a_batch():
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(9, generator=generator, dtype=torch.float64)
    weight, bias = torch.tensor([1.7], dtype=torch.float64), torch.tensor([-0.6]).double()

    def normalized(h):
        return weight * (h - h.mean()) / h.std(correction=0) + bias

    jacobian = torch.autograd.functional.jacobian(normalized, h)
    std = h.std(correction=0)
    torch.testing.assert_close(jacobian.trace(), jacobian_trace(weight, std, 9)[0])
    torch.testing.assert_close(normalized(h).square().sum(), squared_norm(weight, bias, 9)[0])
