"""KN against a numpy transcription of the recursion, on chains of layers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normplug.kalman.states import Activated, Convolved, Posterior, State
from normplug.norms.kn import KN
from normplug.stats import Moments
from tests.kalman.networks import CHAIN, RESIDUAL, STEM, block, conv, made, random_items
from tests.kalman.transcription import Net

# Sums of some hundred float64 terms, through five layers that each divide by a deviation.
EXACT = 1e-10

POOLED = [*STEM[:2], ('pool', 2), ('relu',), ('residual', block(4)), ('relu',), *CHAIN[3:]]
NETS = {
    'chain': CHAIN,
    'residual': RESIDUAL,
    'pool': POOLED,
    'two blocks': [*STEM, ('residual', block(4)), ('relu',), ('residual', block(4))],
    'relu6 sizes': [*STEM, conv(4, 4, 5, 1, 2), ('norm', 4), ('relu',), conv(4, 3), ('norm', 3)],
    **{f'random {seed}': random_items(seed) for seed in range(10)},
}
all_nets = pytest.mark.parametrize('items', NETS.values(), ids=NETS)

OPTIONS = {
    'default': {},
    'released gain': dict(gain=0.1),
    'learned gain': dict(gain='learned'),
    'linear': dict(transition='linear'),
    'linear, learned gain': dict(transition='linear', gain='learned'),
    'affine': dict(state='affine'),
    'never guarded': dict(limit=float('inf')),
    'always guarded': dict(limit=1e-9),
}
all_options = pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)


def params_of(model):
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}


def in_numpy(items, params, x, group=None, seed=None, **options):
    """The output, and the posteriors of each group of images."""
    outputs, found, guarded = [], [], []
    groups = 1 if group is None else len(x) // group
    for i, part in enumerate(np.split(x, groups)):
        noise = None
        if seed is not None:
            torch.manual_seed(seed)
            noise = lambda shape: torch.randn(groups, *shape, dtype=torch.float64)[i].numpy()  # noqa
        net = Net(items, params, noise, **options)
        outputs.append(net(part))
        found.append(net.found)
        guarded += net.guarded
    return np.concatenate(outputs), found, guarded


def assert_close(got, want, tolerance=EXACT):
    got, want = (t.detach().numpy() if isinstance(t, torch.Tensor) else t for t in (got, want))
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= tolerance * max(np.abs(want).max(), 1)


def check_forward(items, group=None, seed=None, images=4, **options):
    """Outputs and running statistics of two steps."""
    model, x = made(items, images=images, virtual_batch_size=group, **options)
    running = {name: (0.0, 1.0) for name, m in model.named_modules() if isinstance(m, KN)}
    pixels, guarded = {}, []
    for name in running:
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: pixels.update({name: args[0][0, 0].numel()})
        )
    for step in (1, 2):
        x = x * step - 0.3
        if seed is not None:
            torch.manual_seed(seed)
        y = model(x)
        want, found, more = in_numpy(items, params_of(model), x.numpy(), group, seed, **options)
        assert_close(y, want)
        guarded += more
        for name, old in running.items():
            average = [np.mean([posterior[name][i] for posterior in found], 0) for i in (0, 1)]
            values = (group or images) * pixels[name]
            average[1] = average[1] * values / (values - 1)
            new = [0.9 * a + 0.1 * b for a, b in zip(old, average, strict=True)]
            layer = model.get_submodule(name)
            assert_close(layer.running_mean, new[0])
            assert_close(layer.running_var, new[1])
            running[name] = new
    return model, guarded


def check_gradients(items, group=None, **options):
    """Of random projections of the output, along random directions, by central differences."""
    model, x = made(items, virtual_batch_size=group, **options)
    dy = torch.randn_like(model(x))
    x.requires_grad_()
    model(x).backward(dy)
    params, step = params_of(model), 1e-6
    x_np, generator = x.detach().numpy(), np.random.default_rng(0)

    def loss(changed, x_changed):
        y, _, _ = in_numpy(items, params | changed, x_changed, group, **options)
        return (y * dy.numpy()).sum()

    tensors = {'x': x.grad} | {name: p.grad for name, p in model.named_parameters()}
    for name, grad in tensors.items():
        assert grad is not None, name
        direction = generator.standard_normal(tuple(grad.shape))
        sides = []
        for sign in (1, -1):
            shift = sign * step * direction
            on_x = name == 'x'
            changed = {} if on_x else {name: params[name] + shift}
            sides.append(loss(changed, x_np + shift if on_x else x_np))
        want = (sides[0] - sides[1]) / (2 * step)
        got = (grad.numpy() * direction).sum()
        # Differences of a loss of some hundreds in float64, and their own curvature.
        scale = np.abs(grad.numpy() * direction).sum() + 1e-2
        assert abs(got - want) <= 1e-5 * scale, (name, got, want)


@all_nets
def test_forward(items):
    check_forward(items)


@all_options
def test_forward_with_options(options):
    for items in (CHAIN, RESIDUAL):
        _, guarded = check_forward(items, **options)
        if 'limit' in options:
            assert all(guarded) if options['limit'] < 1 else not any(guarded)


@pytest.mark.parametrize('name', ['chain', 'residual', 'pool', 'random 0', 'random 4'])
def test_gradients(name):
    check_gradients(NETS[name])


@all_options
def test_gradients_with_options(options):
    check_gradients(RESIDUAL, **options)


@pytest.mark.parametrize('group', [1, 2, 4])
def test_every_group_has_its_own_chain(group):
    check_forward(RESIDUAL, group)


@pytest.mark.parametrize('options', [*OPTIONS.values()][2:6], ids=[*OPTIONS][2:6])
def test_groups_with_options(options):
    check_forward(CHAIN, 2, **options)


def test_gradients_of_groups():
    check_gradients(RESIDUAL, 2, gain='learned')


def test_max_pool_after_relu():
    """Ours by a rule of 513 points, there by one of 20001."""
    items = [*STEM, ('pool', 2), *CHAIN[3:]]
    model, x = made(items)
    want, _, _ = in_numpy(items, params_of(model), x.numpy())
    # h² / 8 times the density at the kink, of a standard deviation.
    assert_close(model(x), want, (16 / 512) ** 2 / 8)


def test_guard_in_some_layers():
    """One takes the batch's moments, and the chain goes on from those."""
    model, x = made(NETS['two blocks'])
    for limit in np.geomspace(0.03, 3, 50):
        want, _, guarded = in_numpy(NETS['two blocks'], params_of(model), x.numpy(), limit=limit)
        if any(guarded) and not all(guarded):
            break
    else:
        pytest.fail('no limit separates the layers')
    for layer in model.modules():
        if isinstance(layer, KN):
            layer.limit = limit
    assert_close(model(x), want)


@pytest.mark.parametrize('limit', [100.0, float('inf')])
def test_a_dead_channel(limit):
    """Its variance is 0: the ratio is infinite, and only an infinite limit still trusts."""
    model, x = made(CHAIN, limit=limit)
    with torch.no_grad():
        model[3].weight[0] = 0
        model[3].weight[0, 0, 1, 1] = 1
        model[1].weight[0] = 0
        model[1].bias[0] = -1
    want, _, guarded = in_numpy(CHAIN, params_of(model), x.numpy(), limit=limit)
    assert guarded[0] == (limit == 100)
    assert_close(model(x), want)


@all_nets
def test_evaluation_is_batch_norm(items):
    model, x = made(items)
    model(x)
    model.eval()
    layers = {name: m for name, m in model.named_modules() if isinstance(m, KN)}
    before = {k: t.clone() for k, t in model.state_dict().items()}
    got = model(x)
    for name, layer in layers.items():
        parent, _, child = name.rpartition('.')
        twin = nn.BatchNorm2d(layer.num_features, eps=layer.eps).double()
        twin.load_state_dict(layer.state_dict())
        setattr(model.get_submodule(parent), child, twin)
    assert_close(got, model.eval()(x), 1e-12)
    assert all(torch.equal(before[k], t) for k, t in model.state_dict().items())


@pytest.mark.parametrize('name', ['chain', 'residual', 'random 1'])
def test_released_sampling(name):
    """With the same random numbers."""
    check_forward(NETS[name], seed=3, transition='sample')


def test_released_sampling_of_groups():
    check_forward(RESIDUAL, 2, seed=3, transition='sample')


@pytest.mark.parametrize('size', [(4, 4), (7, 5), (14, 14)])
def test_released_sampling_in_distribution(size):
    """Its mean over many steps is the closed form's."""
    leaf, draws = Posterior('before'), 4000
    conv2d = nn.Conv2d(3, 4, 3, padding=1).double()
    node = Convolved(Activated(leaf, F.relu), 'conv', conv2d)
    moments = Moments(torch.randn(3).double(), torch.rand(3).double() + 0.2)
    leaf.set(State(moments, size))
    want = node.state().moments
    leaf.set(State(Moments(*(t.expand(draws, -1) for t in moments)), size))
    for drawn, expected in zip(node.state(sampled=True).moments, want, strict=True):
        # The border's mean is predicted for independent normal values after the activation too.
        errors = (drawn.mean(0) - expected).abs() / (drawn.std(0) / draws**0.5)
        assert (errors < 5).all()
