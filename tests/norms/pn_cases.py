"""PN with a population, and its formulas written out."""

import copy

import torch

from tests.cases import TOLERANCE, assert_same, random_input, run

EXACT = TOLERANCE[torch.float64]
SHAPE = (4, 3, 5, 2)
WARM = 100
NEVER = float('inf')


def trained(layer, batches=WARM, seed=0):
    """A layer in double precision with a population, after so many batches."""
    generator = torch.Generator().manual_seed(seed)

    def normal(t):
        return torch.randn(t.shape, generator=generator, dtype=torch.float64)

    layer = layer.double()
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(normal(p))
        layer.running_mean.copy_(0.5 * normal(layer.running_mean))
        layer.running_var.copy_(0.5 + normal(layer.running_var).square())
        layer.num_batches_tracked.fill_(batches)
        if hasattr(layer, 'kurtosis'):
            layer.kurtosis.copy_(normal(layer.kurtosis).tanh())
    return layer


def by_channel(t):
    return t.view(1, -1, 1, 1)


def transcribed(layer, x, numbers=()):
    """One group of images by plain torch: the formulas of the paper and of the docstring."""
    mu_b, var_b = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    mu_p, var_p = layer.running_mean.clone(), layer.running_var.clone()
    sigma_p, numbers = var_p**0.5, list(numbers)
    mu, var = mu_p, var_p
    if layer.noise in ('mean', 'both'):
        mu = mu_b
        if layer.samples:
            mu = mu_p + sigma_p / layer.samples**0.5 * numbers.pop(0)
    if layer.noise in ('var', 'both'):
        var = var_b
        if layer.samples:
            rho = layer.kurtosis
            sigma = sigma_p * (1 + ((rho + 2) / (4 * layer.samples)) ** 0.5 * numbers.pop(0))
            var = torch.max(sigma, 0.1 * sigma_p) ** 2
    square = ((x - by_channel(mu_p)) ** 2).mean((0, 2, 3))
    for channel in range(x.shape[1]):
        far = square[channel] > layer.limit * (var_p[channel] + layer.eps)
        # μ_P with a σ_B of next to nothing.
        flat = layer.noise == 'var' and not layer.samples and 100 * var_b[channel] < var_p[channel]
        if far or flat or layer.num_batches_tracked < layer.warmup:
            one = torch.arange(x.shape[1]) == channel
            mu, var = torch.where(one, mu_b, mu), torch.where(one, var_b, var)
    x_hat = (x - by_channel(mu)) / (by_channel(var) + layer.eps) ** 0.5
    return by_channel(layer.weight) * x_hat + by_channel(layer.bias)


def expected(layer, x, dy, numbers=()):
    """What ``run`` gives, of the transcription, but for the buffers."""
    twin = copy.deepcopy(layer)
    x = x.clone().requires_grad_()
    y = transcribed(twin, x, numbers)
    y.backward(dy)
    grads = {f'grad.{name}': p.grad for name, p in twin.named_parameters()}
    return {'y': y.detach(), 'dx': x.grad, **grads}


def assert_transcribed(layer, x, numbers=()):
    dy = random_input(x.shape, torch.float64, seed=7)
    want = expected(layer, x, dy, numbers)
    got = run(layer, x, dy)
    assert_same({name: got[name] for name in want}, want, EXACT)
