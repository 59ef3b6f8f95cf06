"""What the ranks do by the compiled backend; see ``scenarios.py``."""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import normplug
from normplug import SN, SyncSN
from tests.cases import TOLERANCE, assert_same, random_input
from tests.dist.scenarios import assert_equal_on_all_ranks

NORMS = {'SN': SN, 'SyncSN': SyncSN}


def load():
    """The imports that the first compilation needs: a good part of the time of a call."""
    from torch._inductor import compile_fx  # noqa: F401


def compiled(norm):
    """Both ranks compile the same at once, into one cache."""
    normplug.set_backend('compiled')
    layer = NORMS[norm](5)
    layer(torch.ones(2, 5, 6, 7, requires_grad=True)).square().sum().backward()
    normplug.set_backend('eager')


def train(norm, static_graph, backend):
    """The state after three steps, of other sizes each and on each rank."""
    normplug.set_backend(backend)
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 5, 3), NORMS[norm](5), nn.ReLU(inplace=True)]
    net = nn.Sequential(*layers, nn.Conv2d(5, 5, 1), NORMS[norm](5))
    ddp = DistributedDataParallel(net, broadcast_buffers=False, static_graph=static_graph)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    rank = dist.get_rank()
    for i in range(3):
        optimizer.zero_grad()
        x = random_input((2 + rank, 3, 8 + i, 9 + 2 * i + rank), seed=10 * i + rank)
        y = ddp(x)
        (y - random_input(y.shape, seed=10 * i + rank + 5)).square().mean().backward()
        optimizer.step()
    normplug.set_backend('eager')
    return net.state_dict()


def same_training(norm, static_graph):
    """The backends train alike, and keep the ranks' parameters equal."""
    want, got = (train(norm, static_graph, backend) for backend in ('eager', 'compiled'))
    assert_same(got, want, TOLERANCE[torch.float32])
    own = ('running_mean', 'running_var') if norm == 'SN' else ()
    assert_equal_on_all_ranks(t for name, t in got.items() if not name.endswith(own or '?'))


def a_rank_without_samples():
    """It runs no other compiled step, and finds the same statistics to the last bit."""
    found = []
    for backend in ('eager', 'compiled'):
        normplug.set_backend(backend)
        layer = SyncSN(5)
        for i in range(3):
            x = random_input((2, 5, 8 + i, 9), seed=i)[: 2 - 2 * dist.get_rank()]
            layer(x.requires_grad_()).square().sum().backward()
        assert_equal_on_all_ranks(layer.buffers())
        grads = {name: p.grad for name, p in layer.named_parameters()}
        found.append(dict(layer.named_buffers()) | grads)
    normplug.set_backend('eager')
    assert_same(found[1], found[0], TOLERANCE[torch.float32])
