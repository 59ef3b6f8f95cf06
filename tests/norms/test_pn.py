"""PN against its formulas written out, and against batch norm where it is one."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from normplug.norms import PN, GhostBN, SyncPN
from normplug.running import Tracking
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
        if far or layer.num_batches_tracked < layer.warmup:
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


@pytest.mark.parametrize('limit', [2.0, NEVER])
@pytest.mark.parametrize('batches', [0, WARM - 1, WARM])
@pytest.mark.parametrize('noise', ['none', 'mean', 'var', 'both'])
def test_the_formulas(noise, batches, limit):
    layer = trained(PN(3, noise=noise, limit=limit), batches)
    for seed in range(2):  # the second batch meets what the first has moved, or has not
        assert_transcribed(layer, random_input(SHAPE, torch.float64, seed))


def test_the_guard_looks_at_all_groups():
    """Of two groups one is far off by itself, at first within the limit of both together."""
    layer = PN(1, warmup=0, limit=4.0, virtual_batch_size=2, eps=1e-12).double()
    x = torch.tensor([0.1, -0.1, 2.7, -2.7], dtype=torch.float64).view(4, 1, 1, 1)
    torch.testing.assert_close(layer(x), x)
    layer.reset_running_stats()
    y = layer(1.1 * x)
    torch.testing.assert_close(y, x.sign())


@pytest.mark.parametrize('noise', ['none', 'mean', 'var'])
def test_far_from_the_population_a_channel_uses_the_batch(noise):
    layer = trained(PN(3, noise=noise, limit=4.0))
    shifts = torch.tensor([0.0, 30.0, 0.0], dtype=torch.float64)
    x = random_input(SHAPE, torch.float64)
    x = (x - by_channel(x.mean((0, 2, 3)) - layer.running_mean - shifts)) * 0.5
    x = x + by_channel(layer.running_mean) * 0.5
    square = (x - by_channel(layer.running_mean)).square().mean((0, 2, 3))
    far = square > 4 * (layer.running_var + layer.eps)
    assert far.tolist() == [False, True, False]
    assert_transcribed(layer, x)
    y = layer(x)
    torch.testing.assert_close(y.mean((0, 2, 3))[1], layer.bias[1].detach())


def test_where_the_guard_begins():
    """At a mean square of limit (σ² + ε), which here is 4 (2 + 0.5), by variance or by mean."""
    squares = torch.tensor([9.9, 10.1, 10.1], dtype=torch.float64)
    layer = PN(3, eps=0.5, warmup=0, limit=4.0).double()
    layer.running_var.fill_(2.0)
    x = torch.stack([squares.sqrt(), torch.tensor([-1.0, -1.0, 1.0]) * squares.sqrt()])
    layer.running_mean.copy_(torch.tensor([3.0, -1.0, 2.0]))
    y = layer(x + layer.running_mean)
    torch.testing.assert_close(y[0, 0], (squares[0] / 2.5).sqrt())  # the population's
    torch.testing.assert_close(y[0, 1], (squares[1] / (squares[1] + 0.5)).sqrt())  # the batch's
    torch.testing.assert_close(y[:, 2], torch.zeros(2).double())


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


@pytest.mark.parametrize('group', [None, 1, 2])
@pytest.mark.parametrize('momentum', [0.1, 0.01, None])
def test_with_the_noise_of_both_it_is_batch_norm(group, momentum):
    """Outputs, gradients and buffers, to the last bit, from the first batch on."""
    options = {'momentum': momentum, 'virtual_batch_size': group}
    layer = trained(PN(3, noise='both', **options), batches=0)
    native = GhostBN(3, **options).double()
    native.load_state_dict(layer.state_dict())
    torchs = nn.BatchNorm2d(3, momentum=momentum).double()
    torchs.load_state_dict(layer.state_dict())
    for seed in range(4):
        x = random_input(SHAPE, torch.float64, seed)
        dy = random_input(SHAPE, torch.float64, seed + 10)
        got = run(layer, x, dy)
        assert_same(got, run(native, x, dy), 0)
        if group is None and momentum is not None:  # for None the weight 1/t is a float32
            assert_same(got, run(torchs, x, dy), EXACT)


@pytest.mark.parametrize('options', [{}, {'noise': 'var', 'samples': 2}])
def test_in_evaluation_it_is_batch_norm(options):
    layer = trained(PN(3, **options)).eval()
    native = nn.BatchNorm2d(3).double().eval()
    native.load_state_dict(layer.state_dict(), strict=not options)
    x, dy = random_input(SHAPE, torch.float64), random_input(SHAPE, torch.float64, seed=2)
    got = run(layer, x, dy)
    got.pop('kurtosis', None)
    assert_same(got, run(native, x, dy), EXACT)


@pytest.mark.parametrize(
    'options',
    [{}, {'noise': 'mean'}, {'noise': 'var'}, {'noise': 'both', 'samples': 3}],
    ids=str,
)
@pytest.mark.parametrize('batches', [0, WARM])
def test_gradcheck(options, batches):
    layer = trained(PN(3, **options), batches)
    numbers = [t.clone() for t in layer.drawn(random_input(SHAPE))]
    layer.drawn = lambda x: numbers
    names, values = zip(*layer.named_parameters(), strict=True)

    def function(x, *values):
        buffers = {name: buffer.clone() for name, buffer in layer.named_buffers()}
        return functional_call(layer, (dict(zip(names, values, strict=True)), buffers), (x,))

    x = random_input((2, 3, 3, 2), torch.float64).requires_grad_()
    assert gradcheck(function, (x, *values))


# Running statistics


def normalized_values(layer, batches):
    xs = [random_input(SHAPE, torch.float64, seed) for seed in range(batches)]
    for x in xs:
        layer(x)
    return torch.stack([x.transpose(0, 1).flatten(1) for x in xs])


def mixture(values, weights):
    """Mean and variance of batches (B, C, values) that weigh differently."""
    weights = torch.tensor(weights, dtype=torch.float64).view(-1, 1)
    mean = (weights * values.mean(2)).sum(0)
    square = (values - mean.view(1, -1, 1)).square().mean(2)
    return mean, (weights * square).sum(0)


@pytest.mark.parametrize('population', ['running', 'estimated'])
def test_after_the_warm_up_the_average_is_that_of_its_batches(population):
    layer = PN(3, warmup=5, population=population).double()
    layer.is_estimated = True
    mean, var = mixture(normalized_values(layer, 5), [0.2] * 5)
    torch.testing.assert_close(layer.running_mean, mean)
    torch.testing.assert_close(layer.running_var, var)


def test_running_averages_go_on_slowly_and_estimated_ones_stay():
    for population, step in (('running', 0.02), ('estimated', 0.0)):
        layer = PN(3, warmup=2, momentum=0.02, population=population).double()
        layer.is_estimated = True
        early, late = (1 - step) ** 2 / 2, step * (1 - step)
        mean, var = mixture(normalized_values(layer, 4), [early, early, late, step])
        torch.testing.assert_close(layer.running_mean, mean)
        torch.testing.assert_close(layer.running_var, var)
        assert layer.num_batches_tracked == 4


@pytest.mark.parametrize('group', [None, 1, 2])
def test_the_population_of_images_that_differ(group):
    """Each image has its own offset: within one there is no variance at all."""
    layer = PN(1, warmup=100, virtual_batch_size=group).double()
    offsets = torch.randn(12, dtype=torch.float64)
    for few in offsets.split(group or 1):
        layer(few.view(-1, 1, 1, 1).expand(-1, -1, 3, 3))
    torch.testing.assert_close(layer.running_mean[0], offsets.mean())
    torch.testing.assert_close(layer.running_var[0], offsets.var(correction=0))
    layer.reset_running_stats()
    layer(offsets.view(-1, 1, 1, 1).expand(-1, -1, 3, 3))
    torch.testing.assert_close(layer.running_var[0], offsets.var(correction=0))


@pytest.mark.parametrize(('momentum', 'third'), [(0.01, 1 / 3), (0.5, 0.5), (None, 1 / 3)])
def test_weight_of_a_batch(momentum, third):
    how = Tracking(momentum, True, 3.0)
    steps = [float(how.step(torch.tensor(number))) for number in (1, 3, 4)]
    assert steps == pytest.approx([1.0, third, 0.25 if momentum is None else momentum])


def test_a_checkpoint_of_batch_norm():
    native = nn.BatchNorm2d(3).double()
    for seed in range(3):
        native(random_input(SHAPE, torch.float64, seed))
    x = random_input(SHAPE, torch.float64, 9)
    for warmup, is_warm in ((3, True), (4, False)):
        layer = PN(3, warmup=warmup, limit=NEVER).double()
        layer.load_state_dict(native.state_dict())
        same_as = copy.deepcopy(native).train(not is_warm)
        torch.testing.assert_close(layer(x), same_as(x))
    layer = PN(3).double()
    state = native.state_dict()
    del state['num_batches_tracked']
    layer.load_state_dict(state)
    torch.testing.assert_close(layer(x), copy.deepcopy(native)(x))


def test_a_checkpoint_without_kurtosis_is_told():
    layer = PN(3, noise='both', samples=2)
    with pytest.warns(UserWarning, match='no kurtosis, which stays 0'):
        layer.load_state_dict(nn.BatchNorm2d(3).state_dict(), strict=False)


# Drawn noise


@pytest.mark.parametrize('samples', [4, 32])
def test_the_law_of_what_is_drawn(samples):
    """The μ_B and σ_B that the outputs imply."""
    channels, draws = 4, 4000
    layer = PN(channels, eps=1e-12, noise='both', samples=samples, warmup=0, limit=NEVER).double()
    layer.momentum = 0
    layer.running_mean.copy_(torch.tensor([0.0, 1.0, -2.0, 5.0]))
    layer.running_var.copy_(torch.tensor([1.0, 0.25, 4.0, 9.0]))
    layer.kurtosis.copy_(torch.tensor([0.0, 3.0, -1.2, 1.0]))
    x = torch.tensor([[0.0, 1.0]], dtype=torch.float64).expand(channels, 2)[None]
    torch.manual_seed(0)
    with torch.no_grad():
        y = torch.cat([layer(x) for _ in range(draws)])  # (draws, C, 2)
    sigma = 1 / (y[..., 1] - y[..., 0])
    mu = -y[..., 0] * sigma
    sigma_p, rho = layer.running_var.sqrt(), layer.kurtosis
    laws = (
        (mu, layer.running_mean, sigma_p / samples**0.5),
        (sigma, sigma_p, sigma_p * ((rho + 2) / (4 * samples)) ** 0.5),
    )
    for found, mean, std in laws:
        assert ((found.mean(0) - mean).abs() < 5 * std / draws**0.5).all()
        # Of a normal law; cut off below, at samples=4, in 1 % of the draws at most.
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


# Activation checkpointing


both_modes = pytest.mark.parametrize('use_reentrant', [True, False])


@both_modes
@pytest.mark.parametrize('options', [{}, {'noise': 'both', 'samples': 2}], ids=str)
def test_a_recomputation_has_the_statistics_of_its_forward(options, use_reentrant):
    plain = trained(PN(3, momentum=0.5, **options))
    saving = copy.deepcopy(plain)
    for seed in range(2):
        x = random_input(SHAPE, torch.float64, seed)
        xs = [x.clone().requires_grad_() for _ in range(2)]
        torch.manual_seed(seed)
        plain(xs[0]).square().sum().backward()
        after = torch.get_rng_state()
        torch.manual_seed(seed)
        checkpoint(saving, xs[1], use_reentrant=use_reentrant).square().sum().backward()
        assert torch.equal(torch.get_rng_state(), after)
        torch.testing.assert_close(xs[1].grad, xs[0].grad, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(saving.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-12)
    assert_same(saving.state_dict(), plain.state_dict(), 0)


@both_modes
def test_a_layer_shared_by_checkpointed_blocks_is_refused(use_reentrant):
    layer, x = trained(PN(3)), random_input(SHAPE, torch.float64).requires_grad_()
    y = checkpoint(layer, x, use_reentrant=use_reentrant)
    y = checkpoint(layer, y, use_reentrant=use_reentrant)
    with pytest.raises(ValueError, match=r"type='PN'.*share the layer.*with_cp=False"):
        y.sum().backward()


def test_what_is_kept_is_no_state():
    layer = trained(PN(3))
    layer(random_input(SHAPE, torch.float64))
    assert layer._kept.tensors is not None
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin._kept.tensors is None
        assert twin._kept is not layer._kept
    assert set(layer.state_dict()) == set(nn.BatchNorm2d(3).state_dict())


# What is refused


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'noise': 'std'}, "noise must be one of none, mean, var, both, got 'std'"),
        ({'noise': 'mean', 'samples': 0.5}, 'samples, .*must be a number of at least 1.*got 0.5'),
        ({'noise': 'mean', 'samples': 0}, 'samples, .*must be a number of at least 1.*got 0'),
        ({'noise': 'mean', 'samples': '8'}, "samples, .*got '8'"),
        ({'noise': 'mean', 'samples': True}, 'samples, .*got True'),
        ({'noise': 'mean', 'samples': float('nan')}, 'samples, .*got nan'),
        ({'noise': 'mean', 'samples': float('inf')}, 'samples, .*got inf'),
        ({'samples': 8}, "samples=8 draws noise, and noise='none' has none"),
        ({'population': 'moving'}, "population must be one of running, estimated, got 'moving'"),
        ({'warmup': -1}, 'warmup must be a number of batches, an integer from 0, got -1'),
        ({'warmup': 2.5}, 'warmup must be .*got 2.5'),
        ({'limit': 1}, 'limit must be greater than 1 .*got 1'),
        ({'limit': float('nan')}, 'limit must be greater than 1 .*got nan'),
        ({'noise': 'both', 'population': 'estimated'}, 'batch norm, which uses no population'),
    ],
    ids=str,
)
def test_wrong_arguments(options, message):
    for kind in (PN, SyncPN):
        with pytest.raises(ValueError, match=rf"type='{kind.__name__}'\): .*{message}"):
            kind(4, **options)


def test_nothing_estimates_the_population():
    layer = PN(3, population='estimated')
    with pytest.raises(ValueError, match=r"nothing estimates it.*type='PopulationHook'"):
        layer(random_input(SHAPE))
    layer.eval()(random_input(SHAPE))
    PN(3, population='estimated', frozen=True)(random_input(SHAPE))
