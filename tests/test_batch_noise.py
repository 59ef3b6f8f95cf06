"""The laws of a batch's noise against samples, and the identities of batch norm's Jacobian."""

import numpy as np
import pytest
import torch
from torch.autograd.functional import jacobian

from normplug.batch_noise import (
    decay_strength,
    excess_kurtosis,
    jacobian_trace,
    squared_norm,
    std_of_mean,
    std_of_std,
)

F64 = torch.float64


def gaussian(*shape, generator):
    return torch.randn(*shape, dtype=F64, generator=generator)


def laplace(*shape, generator):
    first, second = (torch.rand(*shape, dtype=F64, generator=generator) for _ in range(2))
    return first.log() - second.log()  # of two exponentials


def uniform(*shape, generator):
    return torch.rand(*shape, dtype=F64, generator=generator)


# Their deviations and excess kurtoses.
FAMILIES = [(gaussian, 1.0, 0.0), (laplace, 2**0.5, 3.0), (uniform, 12**-0.5, -1.2)]
families = pytest.mark.parametrize(
    ('draw', 'std', 'rho'), FAMILIES, ids=lambda f: getattr(f, '__name__', '')
)


@families
@pytest.mark.parametrize('scale', [1.0, 3.0])
def test_the_laws_of_both_statistics(draw, std, rho, scale):
    """With the factor σ_P² that the slide leaves out."""
    samples, batches = 128, 20_000
    generator = torch.Generator().manual_seed(0)
    h = scale * draw(batches, samples, generator=generator) + 2
    std = torch.tensor([scale * std], dtype=F64)
    # Deviations of a variance over B batches are √(2/B): 1 %. The law of σ_B is of leading order.
    assert h.mean(1).var() == pytest.approx(std_of_mean(std, samples).square().item(), rel=0.05)
    found = h.std(1, correction=0).var()
    assert found == pytest.approx(std_of_std(std, rho, samples).square().item(), rel=0.07)


def test_the_law_of_the_deviation_is_not_the_slides():
    """σ_P = 3, M = 64: the law gives 0.0703, the slide 0.0078."""
    std = torch.tensor([3.0], dtype=F64)
    assert std_of_std(std, 0.0, 64).square().item() == pytest.approx(0.0703, abs=5e-5)
    generator = torch.Generator().manual_seed(1)
    h = 3 * gaussian(50_000, 64, generator=generator)
    assert h.std(1, correction=0).var() == pytest.approx(0.0703, rel=0.04)


def test_kurtosis_at_its_bounds():
    second = torch.tensor([0.0, 1.0, 4.0], dtype=F64)
    fourth = torch.tensor([0.0, 1.0, 16 * (1 - 1e-12)], dtype=F64)
    assert excess_kurtosis(second, fourth).tolist() == [0.0, -2.0, -2.0]


def batch_norm(h, gamma, beta):
    x_hat = (h - h.mean()) / h.std(correction=0)
    return gamma * x_hat + beta, x_hat


@pytest.mark.parametrize('samples', [2, 3, 17])
@pytest.mark.parametrize(('gamma', 'beta'), [(1.3, 0.0), (-0.7, 0.4)])
def test_jacobian(samples, gamma, beta):
    generator = torch.Generator().manual_seed(samples)
    h = 3 * torch.randn(samples, dtype=F64, generator=generator) + 5
    found = jacobian(lambda h: batch_norm(h, gamma, beta)[0], h)
    y, x_hat = batch_norm(h, gamma, beta)
    std = h.std(correction=0)
    span = torch.stack((x_hat, torch.ones_like(h)), 1)
    eye = torch.eye(samples, dtype=F64)
    torch.testing.assert_close(found, gamma / std * (eye - span @ span.T / samples))
    gammas, betas = (torch.tensor([v], dtype=F64) for v in (gamma, beta))
    torch.testing.assert_close(jacobian_trace(gammas, std, samples), found.trace()[None])
    torch.testing.assert_close(squared_norm(gammas, betas, samples), y.square().sum()[None])
    # Nothing passes along x̂ and 1.
    torch.testing.assert_close(found @ span, torch.zeros_like(span), atol=1e-12, rtol=0)
    assert x_hat.sum().item() == pytest.approx(0, abs=1e-12)
    # The slide's ĥᵀ1 = 0 is for β = 0.
    assert y.sum().item() == pytest.approx(samples * beta, abs=1e-12)


def test_strength_of_the_decay_written_out():
    generator = torch.Generator().manual_seed(3)
    fisher, curvature, rho = torch.rand(3, 5, dtype=F64, generator=generator)
    for samples in (1, 2, 64):
        found = decay_strength(fisher, curvature, rho, samples)
        for c in range(5):
            want = (rho[c] + 2) / (8 * samples) * fisher[c] + curvature[c] / (2 * samples)
            assert found[c].item() == pytest.approx(want.item())


# ρ, draws of variance 1.
LAWS = {
    'gaussian': (0.0, lambda rng, n: rng.standard_normal(n)),
    'laplace': (3.0, lambda rng, n: rng.laplace(0, 0.5**0.5, n)),
    'uniform': (-1.2, lambda rng, n: rng.uniform(-(3**0.5), 3**0.5, n)),
}


def simulated_excess(draw, samples, gamma, batches, of_var=1.0, of_mean=1.0):
    """E[L(ĥ)] − E[L(h̄)] of a logistic unit, softplus(ĥ) − y ĥ with y ~ Bernoulli(sigmoid(h̄)).

    The batch has shares of the variance and of the mean that ĥ is normalized by; the rest of them
    is the population's, 1 and 0.
    """
    rng = np.random.default_rng(2)
    h = draw(rng, (batches, samples))
    var = of_var * h.var(1, keepdims=True) + 1 - of_var
    noisy = gamma * (h - of_mean * h.mean(1, keepdims=True)) / var**0.5
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


@pytest.mark.parametrize('law', LAWS)
@pytest.mark.parametrize(('of_var', 'of_mean'), [(0.4, 0.0), (0.5, 0.3)])
def test_of_a_mixture_the_regularizer_has_the_squares_of_the_batchs_shares(law, of_var, of_mean):
    kurtosis, draw = LAWS[law]
    gamma, samples = 1.5, 256
    excess, unit, target = simulated_excess(draw, samples, gamma, 2**12, of_var, of_mean)
    curvature = target * (1 - target)
    first = (kurtosis + 2) / (8 * samples) * (curvature * unit**2).mean()
    second = curvature.mean() / (2 * samples)
    assert excess == pytest.approx((of_var**2 * first + of_mean**2 * second) * gamma**2, rel=0.05)
