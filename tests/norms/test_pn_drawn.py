"""The noise that PN draws: its law, and that it can be drawn again."""

import copy

import pytest
import torch

from normplug.norms import PN
from tests.cases import random_input
from tests.norms.pn_cases import NEVER, SHAPE, assert_transcribed, by_channel, trained, transcribed


@pytest.mark.parametrize('noise', ['mean', 'var', 'both'])
@pytest.mark.parametrize('samples', [1, 2.5, 64])
def test_the_formulas_of_drawn_noise(noise, samples):
    layer = trained(PN(3, noise=noise, samples=samples, limit=NEVER))
    torch.manual_seed(5)
    numbers = [torch.randn(3) for _ in range(2 if noise == 'both' else 1)]
    torch.manual_seed(5)
    assert_transcribed(layer, random_input(SHAPE, torch.float64), numbers)


def test_a_drawn_deviation_stays_above_a_tenth():
    layer = trained(PN(3, noise='var', samples=1, limit=NEVER))
    layer.drawn = lambda x: (torch.full((3,), -5.0), layer.kurtosis.clone())
    x = random_input(SHAPE, torch.float64)
    x_hat = (x - by_channel(layer.running_mean)) / (
        by_channel(0.01 * layer.running_var) + layer.eps
    ) ** 0.5
    want = by_channel(layer.weight) * x_hat + by_channel(layer.bias)
    torch.testing.assert_close(layer(x), want)


def test_each_virtual_batch_has_its_own_statistics_and_noise():
    layer = trained(PN(3, noise='both', samples=4, virtual_batch_size=2, limit=NEVER))
    single = copy.deepcopy(layer)
    single.virtual_batch_size = None
    x = random_input((6, *SHAPE[1:]), torch.float64)
    torch.manual_seed(5)
    means, deviations = torch.randn(3, 3), torch.randn(3, 3)
    parts = zip(x.split(2), means, deviations, strict=True)
    want = torch.cat([transcribed(single, part, numbers) for part, *numbers in parts])
    torch.manual_seed(5)
    torch.testing.assert_close(layer(x), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('samples', [8, 32])
def test_the_law_of_what_is_drawn(samples):
    """The μ_B and σ_B that the outputs imply."""
    channels, draws = 4, 4000
    options = {'eps': 1e-12, 'warmup': 0, 'limit': NEVER, 'virtual_batch_size': 1}
    layer = PN(channels, noise='both', samples=samples, **options).double()
    layer.momentum = 0
    layer.running_mean.copy_(torch.tensor([0.0, 1.0, -2.0, 5.0]))
    layer.running_var.copy_(torch.tensor([1.0, 0.25, 4.0, 9.0]))
    layer.kurtosis.copy_(torch.tensor([0.0, 3.0, -1.2, 1.0]))
    x = torch.tensor([0.0, 1.0], dtype=torch.float64).expand(draws, channels, 2)
    torch.manual_seed(0)
    with torch.no_grad():
        y = layer(x)
    sigma = 1 / (y[..., 1] - y[..., 0])
    mu = -y[..., 0] * sigma
    sigma_p, rho = layer.running_var.sqrt(), layer.kurtosis
    laws = (
        (mu, layer.running_mean, sigma_p / samples**0.5),
        (sigma, sigma_p, sigma_p * ((rho + 2) / (4 * samples)) ** 0.5),
    )
    for found, mean, std in laws:
        assert ((found.mean(0) - mean).abs() < 5 * std / draws**0.5).all()
        # Of a normal law; cut off below, at samples=8, in 1 % of the draws at most.
        assert ((found.std(0) - std).abs() < 5 * std / (2 * draws) ** 0.5).all()
    joint = torch.corrcoef(torch.cat([mu.T, sigma.T])) - torch.eye(2 * channels)
    assert joint.abs().max() < 5 / draws**0.5


def test_noise_is_reproduced_from_the_state_of_the_generator():
    layer, x = trained(PN(3, noise='mean', samples=2)), random_input(SHAPE, torch.float64)
    layer.momentum = 0
    state = torch.get_rng_state()
    first, second = layer(x), layer(x)
    torch.set_rng_state(state)
    assert torch.equal(layer(x), first)
    assert not torch.equal(first, second)
    assert torch.equal(layer(x), second)


def test_no_noise_in_evaluation_and_none_is_drawn():
    layer = trained(PN(3, noise='both', samples=2)).eval()
    state = torch.get_rng_state()
    layer(random_input(SHAPE, torch.float64))
    assert torch.equal(torch.get_rng_state(), state)
