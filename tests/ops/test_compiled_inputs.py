"""The compiled backend for every input and every option, and the number of its compilations."""

import random

import pytest
import torch
from torch import nn

import normplug
from normplug import IBN, SN
from normplug.norms.ssn import SSN, set_radius
from normplug.ops import compiled as code
from normplug.ops.traced import trace
from tests.cases import TOLERANCE, Case, assert_same, built, random_input, run

FLOAT32 = TOLERANCE[torch.float32]
LAST = torch.channels_last


def layer_of(channels, **options):
    return built(Case('', lambda c: SN(c, **options)), channels)


def by_both(scenario, tolerance=FLOAT32, **magnitude):
    """``scenario()`` gives the same tensors by both backends; it builds all that it needs."""
    normplug.set_backend('eager')
    want = scenario()
    normplug.set_backend('compiled')
    got = scenario()
    assert_same(got, want, tolerance, **magnitude)
    for name, tensor in want.items():
        assert got[name].stride() == tensor.stride(), name


def train(layer, shape):
    y = layer(torch.randn(shape).requires_grad_())
    y.backward(torch.randn(shape))


@pytest.mark.slow
def test_few_compilations_for_many_sizes():
    """Of 1 and of 2 to 16 pixels, few values or many, one image or more. (Others use them too.)"""
    normplug.set_backend('compiled')
    code.forget()
    layers, before = [SN(c) for c in (3, 4, 8, 16, 32)], code.count()
    for _ in range(50):
        layer = random.choice(layers)
        n, height, width = random.randint(1, 3), random.randint(1, 40), random.randint(1, 40)
        train(layer, (n, layer.num_features, height, width))
    few = code.count() - before
    assert few <= 12
    for _ in range(20):
        train(layers[3], (2, 16, random.randint(70, 90), random.randint(70, 90)))
    assert code.count() - before - few <= 2


SHAPES = {
    'one image': (1, 6, 9, 7),
    'one channel': (2, 1, 9, 7),
    'three channels': (2, 3, 9, 7),
    'one pixel': (3, 4, 1, 1),
    'one value per channel': (1, 4, 1, 1),
    'one value': (1, 1, 1, 1),
    'no spatial axis': (5, 4),
    'three spatial axes': (2, 3, 3, 2, 5),
    'no image': (0, 4, 3, 3),
}


@pytest.mark.slow
@pytest.mark.parametrize('shape', SHAPES)
def test_shapes(shape):
    shape = SHAPES[shape]
    x, dy = random_input(shape), random_input(shape, seed=2)

    # Of a single pixel the instance variance is 0 and 1/sqrt(eps) multiplies dy and its mean.
    one_pixel = x[0, 0].numel() == 1 if len(x) else False
    by_both(lambda: run(layer_of(shape[1]), x, dy), dx=1e5**0.5 if one_pixel else 1)
    if shape[0] != 1:
        by_both(lambda: {'y': layer_of(shape[1]).eval()(x)})


def layouts():
    """x and dy of (2, 6, 8, 10), in whatever memory."""
    x, dy = random_input((2, 6, 8, 10)), random_input((2, 6, 8, 10), seed=2)
    wide = random_input((2, 7, 11, 24), seed=3)
    return {
        'cropped': (wide[:, 1:, 2:10, 4::2], dy),
        'channels_last': (x.to(memory_format=LAST), dy.to(memory_format=LAST)),
        'dy transposed': (x, random_input((2, 6, 10, 8), seed=2).transpose(2, 3)),
        'dy a constant': (x, torch.tensor(2.0).expand_as(x)),
    }


@pytest.mark.slow
@pytest.mark.parametrize('layout', layouts())
def test_layouts(layout):
    x, dy = layouts()[layout]

    def scenario():
        layer = layer_of(6)
        x_ = x.detach().requires_grad_()
        y = layer(x_)
        y.backward(dy)
        grads = {name: p.grad for name, p in layer.named_parameters()}
        return {'y': y.detach(), 'dx': x_.grad, **grads}

    by_both(scenario)


@pytest.mark.slow
def test_one_tensor_twice():
    """As x and dy, or as both logits: what is compiled then is no shortcut for later calls."""
    x, dy = random_input((2, 6, 63)), random_input((2, 6, 63), seed=2)

    def scenario(alike):
        layer = layer_of(6)
        if alike:
            layer.var_weight = layer.mean_weight
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        grads = torch.autograd.grad(y, [leaf, *layer.parameters()], leaf if alike else dy)
        return dict(enumerate([y.detach(), *grads]))

    code.forget()
    for alike in (True, False):
        normplug.set_backend('eager')
        want = scenario(alike)
        normplug.set_backend('compiled')
        for name, tensor in scenario(alike).items():
            torch.testing.assert_close(tensor, want[name], rtol=2e-5, atol=2e-5)


# Beside those of test_compiled_memory.
OPTIONS = {
    'frozen': lambda: built(Case('', lambda c: SN(c, frozen=True)), 6),
    'cumulative': lambda: built(Case('', lambda c: SN(c, momentum=None)), 6),
    'ibn, no in': lambda: built(Case('', lambda c: IBN(c, ratio=0.1)), 6),
    'ibn, one in': lambda: built(Case('', lambda c: IBN(c, ratio=0.25)), 6),
}


@pytest.mark.slow
@pytest.mark.parametrize('option', OPTIONS)
def test_options(option):
    def scenario():
        layer = OPTIONS[option]()
        for seed in (1, 2):
            result = run(layer, *(random_input((2, 6, 9, 7), seed=s) for s in (seed, -seed)))
        return result

    by_both(scenario)


@pytest.mark.slow
def test_ssn_while_its_ratios_are_decided():
    """The same graphs serve before and after."""

    def scenario():
        layer = built(Case('', SSN), 6)
        results = {}
        for radius in (0.0, 0.4, 1.0):
            set_radius(layer, radius)
            result = run(layer, random_input((2, 6, 9, 7)), random_input((2, 6, 9, 7), seed=2))
            results.update({f'{name} at {radius}': t.clone() for name, t in result.items()})
        assert layer.mean_choice.sum() == layer.var_choice.sum() == 1
        return results

    before = code.count()
    by_both(scenario)
    assert code.count() - before == 2


@pytest.mark.slow
@pytest.mark.parametrize('poison', [float('nan'), float('inf')])
def test_non_finite_batches_do_not_count(poison):
    layer = layer_of(6)
    before = {name: b.clone() for name, b in layer.named_buffers()}
    x = random_input((2, 6, 9, 7))
    x[0, -1, 2, 2] = poison
    normplug.set_backend('compiled')
    assert not torch.isfinite(layer(x)).all()
    for name, buffer in layer.named_buffers():
        assert torch.equal(buffer, before[name]), name


@pytest.mark.slow
def test_running_statistics_are_those_of_batch_norm():
    normplug.set_backend('compiled')
    layer, native = SN(5), nn.BatchNorm2d(5).double()
    for seed in range(4):
        x = random_input((2 + seed, 5, 8, 3 + seed), seed=seed)
        layer(x)
        native(x.double())
    assert_same(dict(layer.named_buffers()), dict(native.named_buffers()), 1e-6)


@pytest.mark.slow
def test_a_graph_from_the_cache_keeps_its_guards(monkeypatch):
    """What some process compiled for small maps and left in Inductor's cache is for these only.

    Inductor sums more than 4096 values by other code, and lays that down as a guard.
    """
    from torch._dynamo.utils import counters
    from torch._inductor import config

    compiled = []

    def spy(step, args, inputs, tuning, original=code._compile):
        compiled.append((original(step, args, inputs, tuning), inputs))
        return compiled[-1][0]

    monkeypatch.setattr(code, '_compile', spy)
    normplug.set_backend('compiled')
    hits = []
    with config.patch(fx_graph_cache=True):
        for pixels in (3000, 3000, 5000):
            code.forget()
            SN(6)(torch.ones(2, 6, pixels))
            hits.append(counters['inductor']['fxgraph_cache_hit'])
    (_, small), (cached, _), (_, large) = compiled
    assert hits[1] == hits[0] + 1
    assert cached.fits(small)
    assert not cached.fits(large)


@pytest.mark.slow
def test_negated_views():
    """The imaginary part of a conjugate is stored with the other sign, dy as well as x."""

    def scenario():
        torch.manual_seed(0)
        layer, other = layer_of(6), torch.randn(2, 6, 5, 7)
        x = torch.randn(2, 6, 5, 7, dtype=torch.complex64).conj().imag.detach().requires_grad_()
        assert x.is_neg()
        y = layer(x)
        weights = torch.randn(2, 6, 5, 7, dtype=torch.complex64)
        (torch.complex(other, y).conj() * weights).real.sum().backward()
        return {'y': y, 'dx': x.grad.resolve_neg(), 'dweight': layer.weight.grad}

    by_both(scenario)


def doubled_or_tripled(x_n):
    return (x_n * (2 if (x_n.shape[1] == 7) | (x_n.shape[2] == 5) else 3),)


def test_one_of_two_conditions_on_sizes_is_one_guard():
    """Joined to those on strides, it does not stand in for them."""
    x = random_input((2, 7, 5))
    with trace(doubled_or_tripled, (x,), [x]) as traced:
        fits = traced.guards()
    assert fits([x])
    assert fits([random_input((3, 7, 6))])
    assert not fits([random_input((2, 4, 6))])
    assert not fits([x.transpose(1, 2).contiguous().transpose(1, 2)])
