"""What the ranks do with Kalman-normalized networks; see ``scenarios.py``."""

import torch
from mmengine.model import MMDistributedDataParallel
from torch import nn

from normplug.kalman import link_kalman
from normplug.norms.kn import KN, SyncKN
from tests.cases import assert_same, random_input, run
from tests.dist.model_scenarios import train_by_both
from tests.dist.scenarios import (
    EXACT,
    GATHER,
    REDUCE,
    assert_equal_on_all_ranks,
    assert_matches,
    collectives,
    local,
    own_part,
)


class Network(nn.Module):
    """A chain of three layers, with a residual add."""

    def __init__(self, norm, **options):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 4, 3, padding=1), norm(4, **options)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, padding=1), norm(4, **options)
        self.conv3, self.norm3 = nn.Conv2d(4, 5, 3, stride=2, bias=False), norm(5, **options)

    def forward(self, x):
        x = self.norm1(self.conv1(x)).relu()
        x = (x + self.norm2(self.conv2(x))).relu()
        return self.norm3(self.conv3(x))


def linked(net):
    x = torch.randn(2, 3, 6, 7).double()
    reports = link_kalman(net, lambda: net(x))
    assert [len(r.predecessors) for r in reports] == [0, 1, 2], reports
    return net


def network(norm, **options):
    """With random parameters, the same on all ranks; and the same in one process."""
    torch.manual_seed(0)
    net = Network(norm, **options).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.3, 0.5)
    twin = linked(local(net))
    return linked(net), twin


def whole_batch(split, options):
    """Two steps."""
    net, one_process = network(SyncKN, **options)
    for seed in (1, 3):
        x = random_input((sum(split), 3, 6, 7), torch.float64, seed)
        dy = random_input((sum(split), 5, 2, 3), torch.float64, seed + 1)
        with collectives(*[GATHER] * 3, *[REDUCE] * 3):
            ours = run(net, own_part(x, split), own_part(dy, split))
        assert_matches(ours, run(one_process, x, dy), split)
    assert_equal_on_all_ranks(net.buffers())


def all_ranks_empty(options):
    """Which must not leave a rank waiting, nor a state behind."""
    net, one_process = network(SyncKN, **options)
    empty = torch.zeros(0, 3, 6, 7, dtype=torch.float64)
    found = run(net, empty, torch.zeros(0, 5, 2, 3, dtype=torch.float64))
    assert all(not t.any() for name, t in found.items() if name.startswith('grad.'))
    x, dy = (random_input(s, torch.float64) for s in ((2, 3, 6, 7), (2, 5, 2, 3)))
    ours = run(net, own_part(x, (1, 1)), own_part(dy, (1, 1)))
    assert_matches(ours, run(one_process, x, dy), (1, 1))


def distributed_data_parallel(options):
    """Three steps of SGD on the mean of the ranks' losses; no parameter is waited for in vain."""
    net, one_process = network(SyncKN, **options)
    train_by_both(net, one_process, (2, 1), (3, 6, 7), steps=3)
    assert_same(net.state_dict(), one_process.state_dict(), 10 * EXACT)


def local_statistics(options, sizes):
    """KN, each rank by its own batch (of ``sizes``): the mean of the gradients of both."""
    net, one_process = network(KN, **options)
    ddp = MMDistributedDataParallel(net, broadcast_buffers=False, find_unused_parameters=False)
    for seed in range(2):
        x = random_input((sum(sizes), 3, 6, 7), torch.float64, seed)
        net.zero_grad(), one_process.zero_grad()
        ddp(own_part(x, sizes)).square().sum().backward()
        for part in x.split(sizes):
            (one_process(part).square().sum() / 2).backward()
        got, want = ({k: p.grad for k, p in m.named_parameters()} for m in (net, one_process))
        assert_same(got, want, EXACT)
