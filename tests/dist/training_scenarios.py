"""What a training needs beside its steps, on ranks with data of their own."""

import copy

import mmengine.runner.runner
import torch
import torch.distributed as dist
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel
from torch import nn

from normplug import IBN, SN, PortableSyncBN, SyncSN
from normplug.covariance import inverse_root
from normplug.norms import SW, SyncIterNorm, SyncSW
from normplug.population import estimate_population, running_statistics
from tests.cases import assert_same
from tests.dist.scenarios import EXACT, assert_equal_on_all_ranks
from tests.hooks import isw_training
from tests.hooks import precise_training  # noqa: F401 - registers PlainDataset, ValidatedHook
from tests.hooks import tiny_training as tiny

mmengine.runner.runner.collect_env = dict  # asks compilers for a second


def ssn(work_dir, norm, accumulate):
    """Train with SSN under DDP; the choices that this rank ends with."""
    cfg = tiny.config(work_dir, hooks=('SampleSeedHook', 'SSNRadiusHook', 'RatioGradClipHook'))
    cfg.model.norm = norm
    cfg.launcher = 'pytorch'  # the process group is there
    cfg.model_wrapper_cfg = {'type': 'MMDistributedDataParallel', 'device_ids': None}
    cfg.optim_wrapper.accumulative_counts = accumulate
    cfg.randomness = {'seed': 7, 'diff_rank_seed': True}
    runner = tiny.build(cfg)
    runner.train()
    layer = runner.model.module.norm
    assert layer.num_batches_tracked > 0
    return layer.mean_choice.tolist(), layer.var_choice.tolist()


def load_mmseg():
    """Import it: seconds, which a call of its own has time for."""
    from mmseg.utils import register_all_modules

    register_all_modules(init_default_scope=False)


def isw(work_dir):
    """Train with ISW under DDP; the masks of this rank, its losses and its weights."""
    isw_training.without_formatting()
    cfg = isw_training.config(work_dir, isw_training.WATCH)
    cfg.launcher = 'pytorch'  # the process group is there
    cfg.model_wrapper_cfg = {'type': 'MMDistributedDataParallel', 'device_ids': None}
    cfg.randomness = {'seed': 7, 'diff_rank_seed': True}
    runner, watch = isw_training.trained(cfg)
    weights = {name: p.detach() for name, p in runner.model.module.named_parameters()}
    return watch.masks[-1], [float(losses['loss_isw']) for losses in watch.losses], weights


def averages(work_dir, norm):
    """Train with an averaged model and its population statistics under DDP.

    Every validation sees the statistics of all ranks' batches, and so does the checkpoint.
    """
    cfg = tiny.config(work_dir, hooks=('SampleSeedHook', 'PreciseBNStatsHook', 'ValidatedHook'))
    if norm == 'SyncSSN':
        cfg.custom_hooks = [*cfg.custom_hooks, {'type': 'SSNRadiusHook'}]
    ema = {'type': 'EMAHook', 'ema_type': 'ExponentialMovingAverage', 'momentum': 0.1}
    cfg.custom_hooks = [*cfg.custom_hooks, {**ema, 'update_buffers': True}]
    cfg.model.norm = norm
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.type = 'PlainDataset'
    cfg.launcher = 'pytorch'  # the process group is there
    cfg.model_wrapper_cfg = {'type': 'MMDistributedDataParallel', 'device_ids': None}
    cfg.randomness = {'seed': 7, 'diff_rank_seed': True}
    runner = tiny.build(cfg)
    runner.train()

    (seen,) = (hook for hook in runner.hooks if type(hook).__name__ == 'ValidatedHook')
    (ema,) = (hook for hook in runner.hooks if isinstance(hook, EMAHook))
    assert len(seen.states) == 4
    average, model = ema.ema_model.module, runner.model.module
    for validated in seen.states:
        assert_equal_on_all_ranks(validated.values())
    # The EMA hook has the two exchanged while it validates.
    last = {name.removeprefix('module.'): value for name, value in seen.states[-1].items()}
    tiny.assert_equal(last, dict(average.state_dict()), 'state_dict')
    assert not torch.equal(average.norm.weight, model.norm.weight)
    assert_equal_on_all_ranks(model.parameters())
    if norm == 'SyncSSN':
        for part in ('radius', 'mean_choice', 'var_choice'):
            assert torch.equal(getattr(average.norm, part), getattr(model.norm, part))
        assert average.norm.mean_choice.sum() == average.norm.var_choice.sum() == 1

    # The union of what the ranks have is the whole data, once.
    images = torch.stack([runner.val_dataloader.dataset[i]['image'] for i in range(tiny.SAMPLES)])
    with torch.no_grad():
        values = average.conv(images).movedim(1, -1).flatten(0, -2)
    found = {'mean': average.norm.running_mean, 'var': average.norm.running_var}
    assert_same(found, {'mean': values.mean(0), 'var': values.var(0)}, 1e-5)
    dist.barrier()  # rank 0 has written
    saved = tiny.load(work_dir)['state_dict']
    for name, value in average.state_dict().items():
        assert torch.equal(saved[name], value), name


class Net(BaseModel):
    """Norms on the input itself, and one that another rank may not call."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList([
            nn.BatchNorm2d(4), SN(4), SyncSN(4), IBN(4), PortableSyncBN(4), SW(4), SyncSW(4),
            SyncIterNorm(4),
        ])  # fmt: skip

        self.head = nn.BatchNorm2d(4)
        self.unseen = nn.BatchNorm2d(4)

    def forward(self, x, mode='tensor'):
        features = [norm(x) for norm in self.norms]
        return self.head(features[0]) if x.shape[0] > 1 else features


def batches(rank):
    generator = torch.Generator().manual_seed(rank)
    sizes = [(3, 1), (2, 0), (1, 1)][rank]
    return [{'x': torch.randn(n, 4, 3, 5, generator=generator).double() + rank} for n in sizes]


def roots_of_batches(size):
    """The whitening matrix of each batch of all ranks, on average over its images."""
    pairs = zip(*(batches(r) for r in range(size)), strict=True)
    joined = [torch.cat([b['x'] for b in pair]) for pair in pairs]
    total = sum(map(len, joined))
    covs = [torch.cov(x.movedim(1, -1).flatten(0, -2).T, correction=0) for x in joined]
    return sum(
        len(x) / total * inverse_root(cov, 1e-5, 5) for x, cov in zip(joined, covs, strict=True)
    )[None]


def population():
    """The statistics of the union of what the ranks were given."""
    rank, size = dist.get_rank(), dist.get_world_size()
    net = Net().double()
    before = copy.deepcopy(net.state_dict())
    unseen = estimate_population(net, batches(rank), 2)
    assert unseen == ['unseen']
    assert_equal_on_all_ranks(net.buffers())
    every = torch.cat([b['x'] for r in range(size) for b in batches(r)])
    values = every.movedim(1, -1).flatten(0, -2)
    for norm in net.norms:
        start = getattr(norm, 'batch_from', 0)
        mean, spread = running_statistics(norm)
        if isinstance(norm, SyncIterNorm):
            want = roots_of_batches(size)
        elif isinstance(norm, SW):
            want = torch.cov(values.T, correction=0)[None]
        else:
            want = values.var(0)[start:]
        found = {'mean': mean, 'spread': spread}
        assert_same(found, {'mean': values.mean(0)[start:], 'spread': want}, EXACT)
    assert not torch.equal(net.head.running_mean, before['head.running_mean'])
    assert torch.equal(net.unseen.running_var, before['unseen.running_var'])
