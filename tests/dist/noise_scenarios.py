"""The noise of batch statistics on ranks with batches of their own."""

import mmengine.runner.runner
import torch
import torch.distributed as dist
from torch import nn

from normplug import IBN, PortableSyncBN, SyncSN
from normplug.population.noise_recorder import NoiseRecorder
from normplug.reports.runs import read_scalars
from tests.hooks import noise_training
from tests.hooks import tiny_training as tiny

mmengine.runner.runner.collect_env = dict  # asks compilers for a second
SIZES = [[4, 2], [3, 3], [5, 1], [2, 0]]  # of each batch, by rank


class Net(nn.Module):
    """Norms on the input itself; one that only the first rank calls."""

    def __init__(self):
        super().__init__()
        self.sync = nn.ModuleDict({'portable': PortableSyncBN(4), 'sn': SyncSN(4)})
        self.local = nn.ModuleDict({'ibn': IBN(4), 'bn': nn.BatchNorm2d(4)})
        self.one = nn.BatchNorm2d(4)
        for i, p in enumerate(self.parameters()):
            generator = torch.Generator().manual_seed(i)
            p.data.normal_(generator=generator)

    def loss(self, x, sync=True, local=True, one=False):
        layers = [*self.sync.values()] * sync + [*self.local.values()] * local + [self.one] * one
        weight = torch.arange(6).view(2, 3) + 1.0
        return sum((layer(x).tanh() * weight).mean((1, 2, 3)).sum() for layer in layers)


def inputs():
    generator = torch.Generator().manual_seed(1)
    return [
        [torch.randn(n, 4, 2, 3, generator=generator).double() + 0.2 * n for n in sizes]
        for sizes in SIZES
    ]


def watched(net):
    names = dict(net.named_modules())
    return {n: m for n, m in names.items() if hasattr(m, 'running_mean')}


def recorded(net, passes):
    """``passes``: the loss of each batch, with the number of images that it is a sum over."""
    recorder = NoiseRecorder(watched(net))
    with recorder.watching():
        for run in passes:
            loss, images = run()
            (loss / max(images, 1)).backward()
            recorder.end_batch()
    return recorder.records()


def of_ranks():
    """The records of this rank, which are those of all."""
    rank, net = dist.get_rank(), Net().double()

    def run(x):
        return net.loss(x, local=len(x) > 0, one=rank == 0), len(x)

    return recorded(net, [lambda x=xs[rank]: run(x) for xs in inputs()])


def in_one_process():
    """The same batches: joined for Sync layers, one after the other for local ones."""
    net, data = Net().double(), inputs()
    joined = [lambda x=torch.cat(xs): (net.loss(x, local=False), len(x)) for xs in data]
    found = recorded(net, joined)
    apart = [x for xs in data for x in xs if len(x)]
    found |= recorded(net, [lambda x=x: (net.loss(x, sync=False), len(x)) for x in apart])
    first = [lambda x=xs[0]: (net.loss(x, False, False, True), len(x)) for xs in data]
    return found | recorded(net, first)


def train(work_dir, norm, hook, static):
    """Train under DDP, with batches to accumulate, or with a static graph."""
    options = {'optim_wrapper.accumulative_counts': 1 if static else 3}
    cfg = noise_training.config(work_dir, norm, hook=hook, hooks=('SampleSeedHook',), **options)
    cfg.launcher = 'pytorch'  # the process group is there
    cfg.model_wrapper_cfg = {
        'type': 'MMDistributedDataParallel',
        'device_ids': None,
        'broadcast_buffers': False,
        'static_graph': static,
        'find_unused_parameters': not static,
    }
    cfg.randomness = {'seed': 7, 'diff_rank_seed': True}
    runner = tiny.build(cfg)
    runner.train()
    dist.barrier()  # rank 0 has written
    return runner.model.module.state_dict(), read_scalars(work_dir, 'batch_noise')
