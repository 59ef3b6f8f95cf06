"""A training of milliseconds with PN, whose population is estimated."""

import copy
import itertools

import torch
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS, DATASETS, HOOKS, MODELS
from torch import nn
from torch.utils.data import BatchSampler

from normplug.population import population_loader
from tests.hooks import tiny_training as tiny

WARMUP, INTERVAL = 4, 5
ESTIMATED = {'population': 'estimated', 'warmup': WARMUP}
DRAWN = {'noise': 'both', 'samples': 2, 'warmup': WARMUP}


@DATASETS.register_module()
class SteadyDataset(tiny.NoisyDataset):
    """Samples that do not depend on the generators, skewed so that ρ is not 0."""

    def prepare_data(self, idx):
        generator = torch.Generator().manual_seed(idx)
        image = torch.randn(3, 4, 4, generator=generator).exp() * (idx + 1) / 6
        return {'image': image, 'label': idx % 2, 'index': idx}


@MODELS.register_module()
class NormOfOptions(tiny.NoisyModel):
    """Two layers in a row, so that what the first gives matters."""

    def __init__(self, data_preprocessor=None, **options):
        super().__init__('SN', None, data_preprocessor)
        build = {'type': 'PN', 'num_features': 4, 'momentum': 0.5, **options}
        self.norm = nn.Sequential(MODELS.build(build), nn.Conv2d(4, 4, 1), MODELS.build(build))


@DATA_SAMPLERS.register_module()
class OddOrEven(BatchSampler):
    """Batches of like samples; keeps what has found none, as mmdet's by aspect ratio does."""

    def __init__(self, sampler, batch_size, drop_last=False):
        super().__init__(sampler, batch_size, drop_last)
        self.buckets = [[], []]

    def __iter__(self):
        for i in self.sampler:
            bucket = self.buckets[i % 2]
            bucket.append(i)
            if len(bucket) == self.batch_size:
                yield bucket[:]
                bucket.clear()


@HOOKS.register_module()
class StatesHook(Hook):
    """Keeps the state at the start and after each iteration."""

    priority = 'VERY_LOW'

    def before_train_iter(self, runner, *args, **kwargs):
        if runner.iter == 0:
            self.states = [copy.deepcopy(runner.model.state_dict())]

    def after_train_iter(self, runner, *args, **kwargs):
        self.states.append(copy.deepcopy(runner.model.state_dict()))


def config(work_dir, hook=True, dataset='SteadyDataset', hooks=(), **options):
    cfg = tiny.config(work_dir, by_epoch=False)
    cfg.experiment_name = f'{work_dir.parent.name}-{work_dir.name}'
    cfg.model = {'type': 'NormOfOptions', **options}
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.type = dataset
    if hook:
        own = {'type': 'PopulationHook', 'interval': INTERVAL, 'num_batches': 3}
        cfg.custom_hooks = [*cfg.custom_hooks, own]
    cfg.custom_hooks = [*cfg.custom_hooks, *({'type': name} for name in hooks)]
    return cfg


def states_of(work_dir, **options):
    runner = tiny.build(config(work_dir, hooks=['StatesHook'], **options))
    runner.train()
    return runner, next(h for h in runner.hooks if isinstance(h, StatesHook)).states


def moved(states, name):
    """The iterations (counted from 1) in which a buffer of the second layer changed."""
    pairs = itertools.pairwise(states)
    key = f'norm.2.{name}'
    return [i for i, (old, new) in enumerate(pairs, 1) if not torch.equal(old[key], new[key])]


def inputs_of(model, images):
    """What the two layers get of one batch, as batch norm gives it on."""
    first, conv, _ = model.norm
    x = model.conv(images)
    centred = x - x.mean((0, 2, 3), keepdim=True)
    x_hat = centred / (x.var((0, 2, 3), correction=0, keepdim=True) + first.eps).sqrt()
    y = first.weight.view(1, -1, 1, 1) * x_hat + first.bias.view(1, -1, 1, 1)
    return x, conv(y)


@torch.no_grad()
def assert_estimated(runner, state, done, names=('mean', 'var')):
    """The buffers are the moments of three batches, of this state's weights."""
    model = copy.deepcopy(runner.model)
    model.load_state_dict(state)
    loader = population_loader(runner.cfg, seed=runner.seed)
    loader.sampler.set_epoch(done)
    batches = [batch['image'] for _, batch in zip(range(3), loader, strict=False)]
    for layer, inputs in ((0, 0), (2, 1)):
        seen = [inputs_of(model, images)[inputs] for images in batches]
        x = torch.cat([s.transpose(0, 1).flatten(1) for s in seen], 1).double()
        d = x - x.mean(1, keepdim=True)
        found = {'mean': x.mean(1), 'var': x.var(1)}
        kurtosis = d.pow(4).mean(1) / d.square().mean(1).square() - 3
        for name in names:
            got = state[f'norm.{layer}.running_{name}'].double()
            torch.testing.assert_close(got, found[name], rtol=1e-4, atol=1e-5)
        if f'norm.{layer}.kurtosis' in state:
            got = state[f'norm.{layer}.kurtosis'].double()
            torch.testing.assert_close(got, kurtosis, rtol=1e-3, atol=1e-3)
