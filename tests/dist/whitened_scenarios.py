"""What the ranks do with whitened layers."""

import mmengine.runner.runner
import torch
import torch.distributed as dist

from normplug.whitened import EigenConv, rewrite
from normplug.whitened.rewrite import coordinates_of
from tests.cases import random_input
from tests.dist.scenarios import assert_equal_on_all_ranks
from tests.hooks import tiny_training as tiny

mmengine.runner.runner.collect_env = dict  # asks compilers for a second


def coordinates(split):
    """Those that one process with all samples finds, also where a rank has none."""
    torch.manual_seed(0)  # the same layer on all ranks
    x = random_input((sum(split), 4, 5, 3), torch.float64, 0)
    layers = [EigenConv(4, 6, 1, eps=1e-2).double() for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    rank = dist.get_rank()
    own = x.split(split)[rank]
    for layer, batch in zip(layers, (own, x), strict=True):
        layer.sampling = True
        y = layer(batch)
        y.backward(y.detach())  # white noise would have no directions
    # The second saw all: what it noted is not to be merged over ranks.
    together = layers[1]
    packed = together.seen_in._pending[0]
    layers[0].seen_in.gather()
    mean, cov = packed[:4], packed[4:20].view(4, 4)
    torch.testing.assert_close(layers[0].seen_in.mean, mean)
    torch.testing.assert_close(layers[0].seen_in.cov, cov)
    assert int(layers[0].seen_in.count) == x[:, 0].numel()
    layers[0].seen_out.gather()
    assert_equal_on_all_ranks([layers[0].seen_out.cov])
    before = layers[0](x).detach()
    rewrite(layers[0], coordinates_of(layers[0], 'conv'))
    torch.testing.assert_close(layers[0](x), before)
    assert_equal_on_all_ranks(layers[0].state_dict().values())


def training(work_dir, kind):
    """Train under DDP with other data on each rank; whitened layers stay the same on all."""
    cfg = tiny.config(work_dir, by_epoch=False)
    cfg.model.conv = {'type': kind}
    cfg.custom_hooks += [{'type': 'WhiteningHook', 'interval': 5, 'batches': 2}]
    cfg.launcher = 'pytorch'  # the process group is there
    cfg.model_wrapper_cfg = {'type': 'MMDistributedDataParallel', 'device_ids': None}
    cfg.randomness = {'seed': 7, 'diff_rank_seed': True}
    runner = tiny.build(cfg)
    runner.train()
    conv = runner.model.module.conv
    assert conv.in_mean.any()
    assert_equal_on_all_ranks(conv.state_dict().values())
