"""A training of milliseconds that draws from every generator, in processes that can be killed."""

import itertools
import multiprocessing
import os
import pkgutil
import random
import resource
import shutil
import signal
import traceback
import types
from pathlib import Path

# Matplotlib and dynamo are what mmengine and torch import at the first training: here, once for all
# processes.
import matplotlib.pyplot  # noqa: F401
import numpy as np
import torch
import torch._dynamo
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.runner import Runner
from torch import nn

from normplug.resume import storage

TIMEOUT = 60
SAMPLES = 12


@DATASETS.register_module()
class NoisyDataset(BaseDataset):
    """Every sample depends on the three generators."""

    def load_data_list(self):
        return [{'x': float(i)} for i in range(SAMPLES)]

    def prepare_data(self, idx):
        noise = random.random() + np.random.rand() + torch.rand(1).item()
        image = torch.full((3, 4, 4), self.get_data_info(idx)['x'] / SAMPLES) + noise
        return {'image': image, 'label': idx % 2, 'index': idx}


@MODELS.register_module()
class NoisyModel(BaseModel):
    """Dropout, and one more draw from each generator in every forward pass."""

    def __init__(self, norm='SN', conv=None, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.conv = nn.Conv2d(3, 4, 3)
        if conv is not None:
            own = {'in_channels': 3, 'out_channels': 4, 'kernel_size': 3}
            self.conv = MODELS.build({**conv, **own})
        self.norm = MODELS.build({'type': norm, 'num_features': 4})
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4, 2)
        self.seen = []

    def forward(self, image, label, index, mode='tensor'):
        self.seen.append(index.tolist())
        noise = random.random() + np.random.rand() + torch.rand(1)
        features = self.dropout(self.norm(self.conv(image)).relu()).mean((2, 3))
        scores = self.head(features + noise * 0.1)
        if mode == 'loss':
            return {'loss': nn.functional.cross_entropy(scores, label)}
        return [{'score': score.item()} for score in scores[:, 0]]


@MODELS.register_module()
class SteppingPreprocessor(BaseDataPreprocessor):
    """Draws a scale at every fifth batch and keeps it until then, as BatchSyncRandomResize does."""

    def __init__(self):
        super().__init__()
        self._scale = (1.0,)
        self._batches = 0

    def forward(self, data, training=False):
        data = super().forward(data, training)
        if training:
            self._batches += 1
            if self._batches % 5 == 0:
                self._scale = (random.random(),)
            data['image'] = data['image'] * self._scale[0]
        return data


@METRICS.register_module()
class NoisyMetric(BaseMetric):
    """A random score, and one that grows."""

    def process(self, data_batch, data_samples):
        self.results += [sample['score'] + random.random() for sample in data_samples]

    def compute_metrics(self, results):
        hub = MessageHub.get_current_instance()
        return {
            'score': float(np.mean(results) + np.random.rand()),
            'epoch_number': hub.get_info('epoch'),
        }


@HOOKS.register_module()
class KillHook(Hook):
    """SIGKILL to the own process before an iteration (counted from 0)."""

    priority = 'LOWEST'

    def __init__(self, iteration):
        self.iteration = iteration

    def before_train_iter(self, runner, *args, **kwargs):
        if runner.iter == self.iteration:
            os.kill(os.getpid(), signal.SIGKILL)


def config(work_dir, by_epoch=True, workers=0, hooks=('SampleSeedHook',), persistent=False, **more):
    """4 epochs of 6 iterations, or 24 iterations in one; checkpoints at 6, 12, 18 and 24.

    Args:
        more: options of the checkpoint hook.
    """
    loader = {
        'batch_size': 2,
        'num_workers': workers,
        'persistent_workers': persistent,
        'collate_fn': {'type': 'default_collate'},
        'dataset': {'type': 'NoisyDataset', 'serialize_data': False},
    }
    kind = 'DefaultSampler' if by_epoch else 'InfiniteSampler'
    interval = 1 if by_epoch else 6
    return Config(
        {
            'work_dir': str(work_dir),
            'experiment_name': Path(work_dir).name,
            'model': {'type': 'NoisyModel'},
            'train_dataloader': {**loader, 'sampler': {'type': kind, 'shuffle': True}},
            'val_dataloader': {**loader, 'sampler': {'type': 'DefaultSampler', 'shuffle': False}},
            'val_evaluator': {'type': 'NoisyMetric'},
            'val_cfg': {},
            'train_cfg': {
                'by_epoch': by_epoch,
                'max_epochs' if by_epoch else 'max_iters': 4 * (1 if by_epoch else 6),
                'val_interval': interval,
            },
            'optim_wrapper': {'optimizer': {'type': 'AdamW', 'lr': 0.01}},
            'param_scheduler': [{'type': 'LinearLR', 'by_epoch': False, 'end': 20}],
            'default_hooks': {
                'checkpoint': {
                    'type': 'ResumableCheckpointHook',
                    'by_epoch': by_epoch,
                    'interval': interval,
                    **more,
                },
                'logger': {'type': 'LoggerHook', 'interval': 1},
            },
            'custom_hooks': [{'type': hook} for hook in hooks],
            'randomness': {'seed': 7},
        }
    )


def build(cfg, resume=False, kill_before=None):
    """The runner of a copy of ``cfg``; killed before that iteration (counted from 0)."""
    cfg = Config(cfg.to_dict())
    cfg.resume = resume
    if kill_before is not None:
        cfg.custom_hooks = [*cfg.custom_hooks, {'type': 'KillHook', 'iteration': kill_before}]
    return Runner.from_cfg(cfg)


def train(cfg, prepare=None, **options):
    """Train in this process, which must be a fresh one; ``prepare(cfg)`` is called before."""
    torch.set_num_threads(1)
    for seed in (random.seed, np.random.seed, torch.seed):
        seed()  # of the operating system: the processes' common parent would give all the same
    import mmengine.runner.runner

    mmengine.runner.runner.collect_env = dict  # asks compilers for a second
    if prepare is not None:
        prepare(cfg)
    try:
        build(cfg, **options).train()
    except Exception:
        # stderr is that of the first test which started a process
        Path(cfg.work_dir, 'error').write_text(traceback.format_exc())
        raise


_CONTEXT = multiprocessing.get_context('forkserver')
_CONTEXT.set_forkserver_preload([__name__])


def start(cfg, **options):
    """A process that trains."""
    process = _CONTEXT.Process(target=train, args=(cfg,), kwargs=options)
    process.start()
    return process


def finish(process):
    """Its exit code; negative for a signal."""
    process.join(TIMEOUT)
    if process.is_alive():
        process.kill()
        raise TimeoutError('the training hangs')
    return process.exitcode


def train_apart(cfg, **options):
    """Train in a new process; return the exit code."""
    return finish(start(cfg, **options))


def load(work_dir, name=None):
    """A checkpoint, by default the one that ``last_checkpoint`` names."""
    path = Path(work_dir, name) if name else Path(work_dir, 'last_checkpoint').read_text()
    return torch.load(path, weights_only=True)


def assert_same_training(one, other):
    """All of two checkpoints but times, logs and paths is equal, to the last bit."""
    for key in ('state_dict', 'optimizer', 'param_schedulers', 'random_states'):
        assert_equal(one[key], other[key], key)
    assert one['meta']['iter'] == other['meta']['iter']
    assert one['meta']['epoch'] == other['meta']['epoch']


def assert_equal(one, other, place):
    assert type(one) is type(other), place
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_equal(one[key], other[key], f'{place}.{key}')
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), place
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f'{place}.{i}')
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    else:
        assert one == other, place


def whole(work_dir):
    """Names of the checkpoints there; each of them loads."""
    paths = sorted(Path(work_dir).glob('*.pth'))
    for path in paths:
        torch.load(path, weights_only=True)
    return [path.name for path in paths]


def kill_at_call(cfg, function, call):
    """SIGKILL to the own process in place of the ``call``-th call of ``function``."""
    owner, name = function.rsplit('.', 1)
    owner = pkgutil.resolve_name(owner)
    original = getattr(owner, name)
    calls = itertools.count(1)

    def replaced(*args, **kwargs):
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, replaced)


def fill_the_disk(cfg, write):
    """Let the ``write``-th atomic write find room for half of its bytes."""
    original = storage.write
    writes = itertools.count(1)

    def limited(path, data):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        if next(writes) == write:
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(data) // 2, before[1]))
        try:
            original(path, data)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    storage.write = limited


def no_room(cfg):
    """A full disk."""
    shutil.disk_usage = lambda path: types.SimpleNamespace(free=0)


def error(work_dir):
    """The last line of the traceback that a training ended with."""
    return Path(work_dir, 'error').read_text().splitlines()[-1]


def log(work_dir):
    """The text of all logs."""
    return '\n'.join(path.read_text() for path in sorted(Path(work_dir).glob('*/*.log')))
