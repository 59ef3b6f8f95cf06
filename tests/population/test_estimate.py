"""Population statistics against their definition: mean and variance of all inputs of a layer."""

import copy

import pytest
import torch
from mmengine.model import BaseModel
from torch import nn

from normplug import IBN, SN, PortableSyncBN
from normplug.norms import KN, SSN, SW, IterNorm
from normplug.population import PopulationError, estimate_population, live_norms
from tests.cases import assert_same
from tests.test_precision import NoFloat64

LAYERS = {
    'bn': lambda: nn.BatchNorm2d(4),
    'sn': lambda: SN(4),
    'ssn': lambda: SSN(4),
    'ibn': lambda: IBN(4),
    'portable': lambda: PortableSyncBN(4),
    'average': lambda: nn.BatchNorm2d(4, momentum=None),
}


class Net(BaseModel):
    """A norm on the input itself, which only the test knows, then one that depends on it."""

    def __init__(self, layer):
        super().__init__()
        self.first = layer
        self.conv = nn.Conv2d(4, 4, 1)
        self.second = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.loss_only = nn.BatchNorm2d(4)
        self.modes = []

    def forward(self, x, mode='tensor'):
        self.modes.append((mode, self.training, self.drop.training))
        y = self.drop(self.second(self.conv(self.first(x))))
        return {'loss': self.loss_only(y).sum()} if mode == 'loss' else y


def batches(*sizes, pixels=(3, 5)):
    """Batches of other sizes, places and scales."""
    generator = torch.Generator().manual_seed(1)
    return [
        {'x': torch.randn(n, 4, *pixels, generator=generator).double() * (i + 1) + 10 * i}
        for i, n in enumerate(sizes)
    ]


def values(data, start=0):
    """(values, channels) of all batches."""
    return torch.cat([b['x'].movedim(1, -1).flatten(0, -2) for b in data])[:, start:]


@pytest.mark.parametrize('name', LAYERS)
def test_exact_with_unequal_batches(name):
    net = Net(LAYERS[name]()).double()
    data = batches(3, 1, 4)
    unseen = estimate_population(net, data, 10)
    found = values(data, getattr(net.first, 'batch_from', 0))
    torch.testing.assert_close(net.first.running_mean, found.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(net.first.running_var, found.var(0), rtol=1e-12, atol=0)
    assert unseen == ['loss_only']
    # What the second layer is given is normalized by the first one's batch, without dropout.
    assert (net.second.running_mean - net.second.running_mean.new_zeros(4)).abs().max() > 1e-3


class Masked(nn.BatchNorm2d):
    """Normalizes the brighter pixels only, as SparK's batch norm the visible ones."""

    def forward(self, x):
        bright = x.mean(1) > 0
        y = torch.zeros_like(x)
        chosen = super().forward(x.movedim(1, -1)[bright].T[None, :, :, None])
        y.movedim(1, -1)[bright] = chosen[0, :, :, 0].T
        return y


class ByKeyword(Net):
    def forward(self, x, mode='tensor'):
        return self.first(input=x)


def test_a_batch_norm_of_a_part_of_its_input():
    net = Net(Masked(4)).double()
    data = [{'x': b['x'] - b['x'].mean()} for b in batches(3, 1, 4)]
    estimate_population(net, data, 10)
    found = values(data)
    found = found[found.mean(1) > 0]
    torch.testing.assert_close(net.first.running_mean, found.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(net.first.running_var, found.var(0), rtol=1e-12, atol=0)


def test_a_norm_called_by_keyword():
    net = ByKeyword(nn.BatchNorm2d(4)).double()
    data = batches(3, 2)
    estimate_population(net, data, 10)
    torch.testing.assert_close(net.first.running_mean, values(data).mean(0), rtol=1e-12, atol=0)


def test_released_statistics_are_biased():
    net = Net(SN(4, released_statistics=True)).double()
    data = batches(3, 2)
    estimate_population(net, data, 10)
    want = values(data).var(0, correction=0)
    torch.testing.assert_close(net.first.running_var, want, rtol=1e-12, atol=0)


def test_images_of_other_sizes_weigh_by_their_pixels():
    net = Net(nn.BatchNorm2d(4)).double()
    data = batches(2, pixels=(7, 9)) + batches(1, pixels=(2, 2))
    estimate_population(net, data, 10)
    torch.testing.assert_close(net.first.running_var, values(data).var(0), rtol=1e-12, atol=0)


def test_a_layer_that_is_called_several_times_a_batch():
    class Shared(Net):
        def forward(self, x, mode='tensor'):
            return self.first(x), self.first(x[:, :, :1] * 3), self.first(x[:0])

    net = Shared(SN(4)).double()
    data = batches(2, 3)
    estimate_population(net, data, 10)
    both = data + [{'x': b['x'][:, :, :1] * 3} for b in data]
    torch.testing.assert_close(net.first.running_var, values(both).var(0), rtol=1e-12, atol=0)


def test_large_means_keep_their_digits():
    net = Net(SN(4))
    data = [{'x': b['x'].float() + 1e4} for b in batches(4, 4)]
    estimate_population(net, data, 10)
    want = values([{'x': b['x'].double()} for b in data]).var(0)
    torch.testing.assert_close(net.first.running_var.double(), want, rtol=1e-4, atol=0)


def test_without_float64():
    net = Net(SN(4))
    data = [{'x': b['x'].float()} for b in batches(4, 1, 3)]
    with NoFloat64():
        estimate_population(net, data, 10)
    found = values(data)
    torch.testing.assert_close(net.first.running_mean, found.mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(net.first.running_var, found.var(0), rtol=1e-5, atol=0)


def test_only_so_many_batches_are_drawn():
    net = Net(SN(4)).double()
    iterator = iter(batches(2, 2, 2))
    estimate_population(net, iterator, 2)
    assert len(list(iterator)) == 1


def test_all_else_stays_as_it_was():
    net = Net(SN(4)).double()
    net.first.num_batches_tracked.fill_(7)
    net.conv.eval()
    modes = {name: module.training for name, module in net.named_modules()}
    before = copy.deepcopy(net.state_dict())
    random_state = torch.get_rng_state()
    estimate_population(net, batches(3, 2), 10)
    assert net.modes == [('predict', False, False)] * 2
    assert {name: module.training for name, module in net.named_modules()} == modes
    assert torch.equal(torch.get_rng_state(), random_state)
    changed = {name for name, value in net.state_dict().items() if not value.equal(before[name])}
    kinds = ('running_mean', 'running_var')
    assert changed == {f'{layer}.{kind}' for layer in ('first', 'second') for kind in kinds}
    assert not net.first._forward_pre_hooks


def test_frozen_and_evaluating_layers_are_left_alone():
    class Frozen(Net):
        def train(self, mode=True):  # as norm_eval of mm's backbones
            super().train(mode)
            self.second.eval()
            return self

    net = Frozen(SN(4, frozen=True)).double()
    assert set(live_norms(net)) == {'loss_only'}
    before = copy.deepcopy(net.state_dict())
    estimate_population(net, batches(2), 1)
    assert_same(net.state_dict(), before, 0)


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        ([{'x': torch.full((2, 4, 3, 3), float('nan'))}], 'input of 2 norms, first first, has NaN'),
        ([], 'no batches'),
    ],
)
def test_nothing_changes_where_nothing_comes_out(data, message):
    net = Net(SN(4))
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(PopulationError, match=message):
        estimate_population(net, data, 3)
    assert_same(net.state_dict(), before, 0)
    assert net.first.training


def test_no_norm_to_recompute():
    net = Net(SN(4, using_bn=False))
    net.second, net.loss_only = nn.GroupNorm(1, 4), nn.Identity()
    with pytest.raises(
        PopulationError, match=r'population cannot.* no norm whose running statistics'
    ):
        estimate_population(net, batches(1), 1)


def test_kn_is_refused():
    """Its statistics are not those of its inputs."""
    net = Net(KN(4))
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(PopulationError, match=r'first is a KN, .* cannot be recomputed'):
        estimate_population(net, [torch.randn(2, 4, 3, 3)], 1)
    assert_same(net.state_dict(), before, 0)
    net.first = KN(4, frozen=True)
    assert set(live_norms(net)) == {'second', 'loss_only'}


def blocks(found):
    """(values, 4) as blocks of two channels, (2, 2, values)."""
    return found.T.view(2, 2, -1)


@pytest.mark.parametrize('offset', [0, 1e4])
def test_covariances_are_those_of_all_inputs(offset):
    """Those between batches included, whose means differ."""
    net = Net(SW(4, num_pergroup=2)).double()
    data = [{'x': b['x'] + offset} for b in batches(3, 1, 4)]
    assert estimate_population(net, data, 10) == ['loss_only']
    found = values(data)
    torch.testing.assert_close(net.first.running_mean, found.mean(0), rtol=1e-12, atol=1e-12)
    want = torch.stack([torch.cov(block, correction=0) for block in blocks(found)])
    torch.testing.assert_close(net.first.running_cov, want, rtol=1e-10, atol=0)
    assert net.first.num_batches_tracked == 0


def test_whitening_matrices_are_averages_of_those_of_the_batches():
    """A single value has none, and counts for nothing."""

    class Alone(Net):
        def forward(self, x, mode='tensor'):
            return self.first(x)

    net = Alone(IterNorm(4, num_channels=2, T=16)).double()
    data = batches(3, 1, 4)
    single = batches(1, pixels=(1, 1))
    estimate_population(net, data + single, 10)
    found = values(data)
    torch.testing.assert_close(net.first.running_mean, found.mean(0), rtol=1e-12, atol=1e-12)
    want = 0
    for batch in data:
        covs = [torch.cov(block, correction=0) for block in blocks(values([batch]))]
        eigenvalues, vectors = torch.linalg.eigh(torch.stack(covs))
        root = vectors @ torch.diag_embed((eigenvalues + 1e-5).rsqrt()) @ vectors.mT
        want = want + root * len(batch['x']) / 8
    torch.testing.assert_close(net.first.running_wm, want, rtol=1e-10, atol=0)


@pytest.mark.parametrize('kind', [SW, IterNorm])
def test_whitening_of_few_values(kind):
    """(N, C) inputs, and a batch without images."""

    class Heads(Net):
        def forward(self, x, mode='tensor'):
            return self.first(x[:, :, 0, 0]), self.first(x[:0])

    net = Heads(kind(4)).double()
    data = batches(3, 2)
    estimate_population(net, data, 10)
    want = torch.cat([b['x'][:, :, 0, 0] for b in data]).mean(0)
    torch.testing.assert_close(net.first.running_mean, want, rtol=1e-12, atol=0)
    assert all(torch.isfinite(t).all() for t in net.first.running())
