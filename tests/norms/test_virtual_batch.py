"""Statistics over groups of images: as layers that see one group each."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from normplug.norms import IBN, SN, SSN, GhostBN, SyncSN
from tests.cases import TOLERANCE, assert_same, random_input, run

BUILDS = {
    'bn': GhostBN,
    'sn': SN,
    'sn_no_in': lambda c, **kw: SN(c, using_in=False, **kw),
    'sn_released': lambda c, **kw: SN(c, released_statistics=True, **kw),
    'ssn': SSN,
    'ibn': IBN,
}
all_builds = pytest.mark.parametrize('build', BUILDS.values(), ids=BUILDS)


def randomized(layer):
    torch.manual_seed(1)
    for value in layer.parameters():
        nn.init.normal_(value, 1.0, 0.5)
    return layer


def in_turn(whole, x, dy, size):
    """The layer's results, group after group, by twins without virtual batches."""
    twins, results = [], []
    for x_g, dy_g in zip(x.split(size), dy.split(size), strict=True):
        twin = deepcopy(whole)
        twin.virtual_batch_size = None
        results.append(run(twin, x_g, dy_g))
        twins.append(twin)
    want = {name: torch.cat([r[name] for r in results]) for name in ('y', 'dx')}
    for name in results[0].keys() - {'y', 'dx'}:
        parts = torch.stack([r[name].double() for r in results])
        # Gradients add up; running statistics are averaged.
        want[name] = parts.sum(0) if name.startswith('grad.') else parts.mean(0)
    return want, twins


@pytest.mark.parametrize('size', [1, 2, 3, 6])
@all_builds
def test_every_group_is_normalized_alone(build, size):
    check_groups(build, size)


@pytest.mark.slow
@pytest.mark.parametrize('build', [SN, IBN])
def test_every_group_is_normalized_alone_compiled(build, compiled):
    for size in (1, 2, 3):
        check_groups(build, size)


def check_groups(build, size):
    layer = randomized(build(5, virtual_batch_size=size).double())
    shape = (6, 5, 4, 3)
    x, dy = random_input(shape).double() * 2 + 3, random_input(shape, seed=2).double()
    # Groups that differ, so that statistics over all would not do.
    x = x + torch.arange(6.0, dtype=x.dtype).view(6, 1, 1, 1)
    want, twins = in_turn(layer, x, dy, size)
    got = run(layer, x, dy)
    assert_same(got, {k: v for k, v in want.items() if k in got}, TOLERANCE[torch.float64])
    for name in ('running_mean', 'running_var'):
        average = torch.stack([getattr(twin, name) for twin in twins]).mean(0)
        torch.testing.assert_close(getattr(layer, name), average, rtol=1e-12, atol=1e-12)
    assert layer.num_batches_tracked == 1


@pytest.mark.parametrize('size', [1, 2, 4])
def test_ghost_bn_is_torchs_batch_norm_of_each_group(size):
    ours = randomized(GhostBN(3, virtual_batch_size=size).double())
    theirs = nn.BatchNorm2d(3).double()
    theirs.load_state_dict(ours.state_dict())
    x = random_input((4, 3, 5, 7)).double()
    want = torch.cat([theirs(part) for part in x.split(size)])
    torch.testing.assert_close(ours(x), want, rtol=1e-12, atol=1e-12)
    ours.eval(), theirs.eval()
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)


@all_builds
def test_gradcheck(build):
    layer = randomized(build(2, virtual_batch_size=2).double())
    x = random_input((4, 2, 3, 2)).double().requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,))


@all_builds
def test_evaluation_and_empty_batches_have_no_groups(build):
    layer = build(3, virtual_batch_size=4)
    assert layer(torch.zeros(0, 3, 2, 2)).shape == (0, 3, 2, 2)
    assert layer.eval()(torch.zeros(3, 3, 2, 2)).shape == (3, 3, 2, 2)


def test_a_batch_that_does_not_divide():
    with pytest.raises(ValueError, match='virtual_batch_size=4 does not divide the batch of 6'):
        GhostBN(3, virtual_batch_size=4)(torch.zeros(6, 3, 2, 2))


@pytest.mark.parametrize('size', [0, -1, 2.0, True, '2'])
def test_not_a_number_of_images(size):
    with pytest.raises(ValueError, match='virtual_batch_size must be a positive integer or None'):
        GhostBN(3, virtual_batch_size=size)


def test_synchronized_layers_refuse():
    with pytest.raises(ValueError, match="joins the batches of all ranks: use type='SN'"):
        SyncSN(3, virtual_batch_size=2)


def test_without_batch_statistics():
    with pytest.raises(ValueError, match='virtual_batch_size needs batch statistics'):
        SN(3, using_bn=False, virtual_batch_size=2)
