"""Estimates of the population of PN, BRN and MABN, and of PN's kurtosis alone."""

import copy

import pytest
import torch
from torch import nn

from normplug import BRN, MABN, PN
from normplug.batch_noise import excess_kurtosis
from normplug.population import PopulationError, estimate_population


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norms = nn.Sequential(
            PN(3, warmup=0, noise='var', samples=2), nn.BatchNorm2d(3), PN(3, warmup=0)
        )

    def val_step(self, x):
        self.norms(x)


def test_only_the_chosen_layers_change_and_all_normalize_by_the_batch():
    net = Net().double()
    xs = [torch.randn(2, 3, 4, 5, dtype=torch.float64) * (i + 1) + i for i in range(3)]
    before = copy.deepcopy(net.state_dict())
    assert estimate_population(net, xs, 3, ['norms.2'], ['norms.0']) == []
    after = net.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {'norms.0.kurtosis', 'norms.2.running_mean', 'norms.2.running_var'}
    assert (net.norms[0].noise, net.norms[0].samples) == ('var', 2.0)
    flat = torch.cat([x.transpose(0, 1).flatten(1) for x in xs], 1)
    centred = flat - flat.mean(1, keepdim=True)
    want = excess_kurtosis(centred.square().mean(1), centred.pow(4).mean(1))
    torch.testing.assert_close(net.norms[0].kurtosis, want)
    # A batch that is normalized by itself, twice: what the third layer sees is centred.
    torch.testing.assert_close(
        net.norms[2].running_mean, torch.zeros(3).double(), atol=1e-9, rtol=0
    )


def test_a_brn_too_normalizes_by_the_batch_meanwhile():
    net = Net()
    net.norms = nn.Sequential(BRN(3, r_max=3, d_max=5), nn.BatchNorm2d(3)).double()
    xs = [torch.randn(2, 3, 4, 5, dtype=torch.float64) * (i + 1) + i for i in range(3)]
    assert estimate_population(net, xs, 3) == []
    flat = torch.cat([x.transpose(0, 1).flatten(1) for x in xs], 1)
    torch.testing.assert_close(net.norms[0].running_mean, flat.mean(1))
    torch.testing.assert_close(net.norms[0].running_var, flat.var(1))
    zero = torch.zeros(3).double()
    torch.testing.assert_close(net.norms[1].running_mean, zero, atol=1e-9, rtol=0)
    assert not net.norms[0].is_batch_norm


def test_of_a_mabn_they_are_mean_squares():
    net = Net()
    net.norms = MABN(3, window=2, warmup=0).double()
    net.norms.num_batches_tracked.fill_(9)  # which does not normalize by its windows meanwhile
    xs = [torch.randn(2, 3, 4, 5, dtype=torch.float64) * (i + 1) + i for i in range(3)]
    assert estimate_population(net, xs, 3) == []
    flat = torch.cat([x.transpose(0, 1).flatten(1) for x in xs], 1)
    torch.testing.assert_close(net.norms.running_var, flat.square().mean(1))
    assert not net.norms.running_mean.any()
    assert not net.norms.square_window.any()


def test_values_that_are_not_finite():
    net = Net().double()
    x = torch.full((2, 3, 4, 5), float('nan'), dtype=torch.float64)
    with pytest.raises(PopulationError, match=r'norms\.0 first, has NaN'):
        estimate_population(net, [x], 1, [], ['norms.0'])
