"""What the ranks do with whole networks; see ``scenarios.py``."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from normplug import PortableSyncBN, SyncIBN, SyncSN
from normplug.launch import UserError
from normplug.launch.portable_ddp import PortableSyncBatchNorm, make_sync_bn_portable
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


def train_by_both(net, one_process, split, shape, steps):
    """Steps of SGD on the mean of the ranks' losses: ``net`` under DDP, ``one_process`` on all."""
    ddp = MMDistributedDataParallel(net, broadcast_buffers=False, find_unused_parameters=False)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (net, one_process)]
    for seed in range(steps):
        x = random_input((sum(split), *shape), torch.float64, seed)
        for optimizer in optimizers:
            optimizer.zero_grad()
        ddp(own_part(x, split)).square().mean().backward()
        losses = [y.square().mean() for y in one_process(x).split(split)]
        (sum(losses) / len(losses)).backward()
        for optimizer in optimizers:
            optimizer.step()


def distributed_data_parallel():
    """Two steps of SGD on the mean of the ranks' losses."""
    net = network()
    one_process = local(net)
    split = (2, 1, 2)[: dist.get_world_size()]
    train_by_both(net, one_process, split, (5, 6, 5), steps=2)
    assert_same(net.state_dict(), one_process.state_dict(), EXACT)
    assert_equal_on_all_ranks(net.state_dict().values())


class Pyramid(nn.Module):
    """mmdet's ResNet-18 and FPN, small; all levels in one output (N, values)."""

    def __init__(self, norm):
        from mmdet.registry import MODELS  # its import is slow, and most ranks do without

        super().__init__()
        width, norm_cfg = 4, {'type': norm}
        self.backbone = MODELS.build(
            {
                # By scope: a runner built before in this process left its own as the default.
                'type': 'mmdet.ResNet',
                'depth': 18,
                'stem_channels': width,
                'base_channels': width,
                'norm_cfg': norm_cfg,
                'norm_eval': False,
            }
        )
        self.neck = MODELS.build(
            {
                'type': 'mmdet.FPN',
                'in_channels': [width * 2**i for i in range(4)],
                'out_channels': 6,
                'num_outs': 5,
                'norm_cfg': norm_cfg,
            }
        )

    def forward(self, x):
        return torch.cat([level.flatten(1) for level in self.neck(self.backbone(x))], 1)


def backbone_and_fpn(norm, split):
    """Two steps under a fixed random upstream gradient."""
    torch.manual_seed(0)
    net = Pyramid(norm).double().train()
    for name, parameter in net.named_parameters():
        if 'bn' in name:
            nn.init.normal_(parameter)
    one_process = local(net)
    if norm == 'SyncBN':
        one_process = revert_sync_batchnorm(one_process)
        assert make_sync_bn_portable(net) == 20 + 8  # of the backbone, of the FPN
    for seed in range(2):
        x = random_input((sum(split), 3, 64, 64), torch.float64, seed)
        with torch.no_grad():
            shape = one_process.eval()(x).shape
            one_process.train()
        dy = random_input((*shape, 1), torch.float64, seed=seed + 10).squeeze(-1)
        ours = run(net, own_part(x, split), own_part(dy, split))
        assert_matches(ours, run(one_process, x, dy), split)
    assert_equal_on_all_ranks(net.buffers())


def portable_wrapper():
    """What the tools wrap a model in where there is no GPU."""
    net = network()
    net.append(nn.BatchNorm2d(5)).append(nn.SyncBatchNorm(5)).double()
    layers, names = list(net), list(net.state_dict())
    wrapper = {'type': 'PortableDistributedDataParallel', 'broadcast_buffers': False}
    runner = SimpleNamespace(distributed=True, cfg={})
    ddp = Runner.wrap_model(runner, wrapper, net)
    assert list(ddp.module) == layers
    assert list(ddp.module.state_dict()) == names
    assert type(net[-2]) is nn.BatchNorm2d
    assert isinstance(net[-1], PortableSyncBatchNorm)
    assert isinstance(net[-1], _BatchNorm)  # what norm_eval and norm_decay_mult look for
    net[-2].eval()
    ddp(random_input((2, 5, 6, 5), torch.float64, seed=dist.get_rank())).sum().backward()
    assert_equal_on_all_ranks(net.buffers())

    # With sync_bn, mmengine first makes every batch norm a SyncBN.
    runner.cfg = {'sync_bn': 'torch'}
    net = nn.Sequential(SyncSN(5), nn.BatchNorm2d(5))
    ddp = Runner.wrap_model(runner, wrapper, net)
    assert [type(layer) for layer in ddp.module] == [SyncSN, PortableSyncBatchNorm]

    with pytest.raises(UserError, match='0: SyncBN with affine=False'):
        make_sync_bn_portable(nn.Sequential(nn.SyncBatchNorm(5, affine=False)))


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
