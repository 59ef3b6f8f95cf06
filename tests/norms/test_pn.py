"""PN against its formulas written out, and against batch norm where it is one."""

import copy

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call

from normplug.norms import PN, GhostBN, SyncPN
from normplug.running import Tracking
from tests.cases import assert_same, random_input, run
from tests.norms.pn_cases import EXACT, NEVER, SHAPE, WARM, assert_transcribed, by_channel, trained


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


def test_batches_of_one_value_end_the_warm_up():
    """Image pooling at one image; the variance is that between batches."""
    layer = PN(1, warmup=5, limit=NEVER).double()
    values = torch.randn(6, dtype=torch.float64)
    for value in values[:5]:
        layer(value.view(1, 1, 1, 1))
    torch.testing.assert_close(layer.running_var[0], values[:5].var(correction=0))
    y = layer(values[5].view(1, 1, 1, 1))
    want = (values[5] - values[:5].mean()) / (values[:5].var(correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(y.squeeze(), want)


@pytest.mark.parametrize('noise', ['mean', 'var', 'both'])
def test_a_batch_of_one_value_is_beta_where_its_statistics_are_used(noise):
    layer = trained(PN(3, noise=noise, limit=NEVER))
    x = random_input((1, 3, 1, 1), torch.float64).requires_grad_()
    y = layer(x)
    y.sum().backward()
    torch.testing.assert_close(y[0, :, 0, 0], layer.bias)
    assert not x.grad.any()


@pytest.mark.parametrize('group', [None, 2])
def test_a_batch_that_hardly_varies_has_no_say_in_the_variance_alone(group):
    """σ_B of 0.09, 0.11 and 1 times σ_P, at a distance of σ_P; of each group by itself."""
    layer = PN(3, noise='var', warmup=0, limit=NEVER, eps=1e-30, virtual_batch_size=group)
    layer = layer.double()
    layer.running_var.fill_(4.0)
    shares = torch.tensor([0.09, 0.11, 1.0], dtype=torch.float64)
    x = 2 + 2 * torch.stack([-shares, shares])
    want = torch.stack([-torch.ones(3), torch.ones(3)]).double()
    want[:, 1:] += 1 / shares[1:]
    if group:
        x = torch.cat([x, x.flip(1)])
        want = torch.cat([want, want.flip(1)])
    assert_same({'y': layer(x).detach()}, {'y': want}, EXACT)


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
