"""What the ranks do with whole networks; see ``scenarios.py``."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import Runner
from torch import nn

from normplug import PortableSyncBN, SyncIBN, SyncSN
from tests.cases import assert_same, random_input, run
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


def network():
    """Convolutions with a synchronized norm of each type after them."""
    torch.manual_seed(0)
    layers = []
    for norm in (SyncSN, SyncIBN, PortableSyncBN):
        layers += [nn.Conv2d(5, 5, 3, padding=1, bias=False), norm(5), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(5, 5, 1)).double()


def sequence(split):
    """A rank without samples goes through many layers with the others."""
    net = network()
    one_process = local(net)
    x = random_input((sum(split), 5, 6, 5), torch.float64)
    dy = random_input(x.shape, torch.float64, seed=2)
    with collectives(*[GATHER] * 3, *[REDUCE] * 3):
        ours = run(net, own_part(x, split), own_part(dy, split))
    whole = run(one_process, x, dy)
    assert_matches(ours, whole, split)


def distributed_data_parallel():
    """Two steps of SGD on the mean of the ranks' losses."""
    net = network()
    one_process = local(net)
    split = (2, 1, 2)[: dist.get_world_size()]
    ddp = MMDistributedDataParallel(net, broadcast_buffers=False, find_unused_parameters=False)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (net, one_process)]
    for seed in range(2):
        x = random_input((sum(split), 5, 6, 5), torch.float64, seed)
        for optimizer in optimizers:
            optimizer.zero_grad()
        ddp(own_part(x, split)).square().mean().backward()
        losses = [y.square().mean() for y in one_process(x).split(split)]
        (sum(losses) / len(losses)).backward()
        for optimizer in optimizers:
            optimizer.step()
    assert_same(net.state_dict(), one_process.state_dict(), EXACT)
    assert_equal_on_all_ranks(net.state_dict().values())


def sync_bn_in_a_config():
    """``sync_bn='torch'`` converts batch norms only; ours train as they are."""
    net = network()
    before = list(net)
    runner = SimpleNamespace(distributed=True, cfg={'sync_bn': 'torch'})
    ddp = Runner.wrap_model(runner, {'device_ids': None, 'broadcast_buffers': False}, net)
    assert isinstance(ddp, MMDistributedDataParallel)
    assert list(ddp.module) == before
    ddp(random_input((2, 5, 6, 5), torch.float64, seed=dist.get_rank())).sum().backward()
    assert_equal_on_all_ranks(net.buffers())

    # The control: a batch norm is converted, and then not accepted on CPUs.
    with pytest.raises(ValueError, match='SyncBatchNorm layers only work with GPU modules'):
        Runner.wrap_model(runner, {'device_ids': None}, nn.Sequential(SyncSN(5), nn.BatchNorm2d(5)))
