"""Records of the noise in a training, which goes on as if they had not been made."""

import json

import mmengine.runner.runner
import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn
from torch.utils.data import BatchSampler

from normplug import SN
from normplug.errors import UnsuitableModelError
from normplug.hooks import BatchNoiseHook
from normplug.hooks.of_runner import hook_of
from normplug.population import PopulationError
from normplug.reports.runs import read_run, read_scalars
from tests.hooks import tiny_training as tiny
from tests.hooks.noise_training import config


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.setattr(mmengine.runner.runner, 'collect_env', dict)  # asks compilers for a second


HOOK = {'interval': 10, 'batches': 3}
BATCHED = {'type': BatchSampler, 'drop_last': False}  # of torch: not in mm's registry


@pytest.mark.slow
@pytest.mark.parametrize(
    ('norm', 'by_epoch', 'options'),
    [
        ('SN', True, {}),
        ('SN', False, {'more': [{'type': 'GammaDecayHook', 'samples': 2, 'momentum': 0.5}]}),
        ('KN', False, {'hooks': ('KalmanLinkHook',)}),
        ('IBN', False, {'optim_wrapper.accumulative_counts': 4}),
        ('GhostBN', True, {'hooks': ('SampleSeedHook',), 'train_dataloader.num_workers': 1}),
    ],
)
def test_training_is_the_same_to_the_last_bit(tmp_path, norm, by_epoch, options):
    tiny.build(config(tmp_path / 'without', norm, by_epoch, **options)).train()
    runner = tiny.build(config(tmp_path / 'with', norm, by_epoch, HOOK, **options))
    runner.train()
    tiny.assert_same_training(tiny.load(tmp_path / 'without'), tiny.load(tmp_path / 'with'))
    found = read_scalars(tmp_path / 'with', 'batch_noise')
    assert list(found) == [0, 10, 20, 24]
    for layers in found.values():
        assert list(layers) == ['norm', 'norm/call_2']
        assert layers['norm']['images'] == 2
        assert 'zeta' not in layers['norm']
    assert all('score' in record for record in read_run(tmp_path / 'with').val)


def test_several_optimizers(tmp_path):
    """As of a GAN: such a wrapper has no context of its own."""
    runner = tiny.build(config(tmp_path / 'work', hook=HOOK))
    parameters = runner.model.conv.parameters(), runner.model.norm.parameters()
    one, other = (OptimWrapper(torch.optim.SGD(own, lr=0.1)) for own in parameters)
    runner.optim_wrapper = OptimWrapperDict(one=one, other=other)
    hook = hook_of(runner.hooks, 'BatchNoiseHook')
    hook.before_train(runner)
    hook.before_train_iter(runner)
    assert read_scalars(tmp_path / 'work', 'batch_noise')[0]['norm']['images'] == 2


def test_batch_norms_of_torch_beside_a_norm_with_memory(tmp_path):
    """NormMemoryHook watches the first iteration, before which is the first measurement."""
    cfg = config(tmp_path / 'work', hook=HOOK, hooks=('NormMemoryHook',))
    cfg.model = {'type': 'NoisyModel', 'norm': 'BRN'}
    runner = tiny.build(cfg)
    runner.model.conv = nn.Sequential(runner.model.conv, nn.BatchNorm2d(4))
    runner.train()
    for layers in read_scalars(tmp_path / 'work', 'batch_noise').values():
        assert {name.split('/')[0] for name in layers} == {'conv.1', 'norm'}


def test_a_measurement_is_of_one_network(tmp_path):
    """PN normalizes by what batches before have moved, and counts them in its warm-up."""
    cfg = config(tmp_path / 'work', hook=HOOK)
    cfg.model = {'type': 'NoisyModel', 'norm': 'PN'}
    runner = tiny.build(cfg)
    layer, seen = runner.model.norm, []
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    hook = hook_of(runner.hooks, 'BatchNoiseHook')
    hook.before_train(runner)
    layer.register_forward_pre_hook(
        lambda own, args: seen.append([b.clone() for b in own.running()])
    )
    runner.model.train()
    hook.before_train_iter(runner)
    assert len(seen) == HOOK['batches']
    for buffers in seen:
        assert all(torch.equal(one, other) for one, other in zip(buffers, seen[0], strict=True))
    layer(torch.randn(2, 4, 3, 3))
    assert layer.num_batches_tracked == seen[0][2] + 1


@pytest.mark.slow
def test_a_batch_norm_of_torch_on_every_backend(tmp_path):
    cfg = config(tmp_path / 'work', hook={'interval': 7, 'batches': 6})
    cfg.model = {'type': 'NoisyModel'}
    runner = tiny.build(cfg)
    runner.model.norm = nn.BatchNorm2d(4)
    logged = []
    runner.visualizer.add_scalars, add = (
        lambda s, step, **more: (logged.append((step, s)), add(s, step=step, **more)),
        runner.visualizer.add_scalars,
    )
    runner.train()
    logged = [(step, s) for step, s in logged if any(tag.startswith('batch_noise/') for tag in s)]
    assert [step for step, _ in logged] == [0, 7, 14, 21, 24]
    for _, scalars in logged:
        assert scalars.keys() == logged[0][1].keys()
        assert scalars['batch_noise/norm/decay'] > 0
    (path,) = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line for line in lines if 'batch_noise/norm/zeta' in line] == [
        {**scalars, 'step': step} for step, scalars in logged
    ]
    norm = runner.model.norm
    assert norm.num_batches_tracked == 24
    assert all(p.grad is None for p in runner.model.parameters())
    assert not any(m._forward_hooks for m in runner.model.modules())


@pytest.mark.slow
@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('by_epoch', [True, False])
def test_the_same_samples_each_time(tmp_path, by_epoch, workers):
    """Without steps, all measurements agree to the last bit."""
    cfg = config(tmp_path / 'work', by_epoch=by_epoch, hook=HOOK)
    cfg.model = {'type': 'NoisyModel'}
    cfg.optim_wrapper.optimizer.lr = 0.0
    cfg.train_dataloader.num_workers = workers
    cfg.train_dataloader.persistent_workers = workers > 0
    tiny.build(cfg).train()
    found = list(read_scalars(tmp_path / 'work', 'batch_noise').values())
    assert len(found) == 4
    assert all(layers == found[0] for layers in found)


@pytest.mark.parametrize('seed', [None, 2**31 - 1])
def test_seeds_that_mmengine_draws(tmp_path, seed):
    cfg = config(tmp_path / 'work', hook={**HOOK, 'interval': 24}, **{'randomness.seed': seed})
    cfg.model = {'type': 'NoisyModel'}
    tiny.build(cfg).train()
    assert list(read_scalars(tmp_path / 'work', 'batch_noise')) == [0, 24]


@pytest.mark.slow
def test_killed_and_resumed(tmp_path):
    """The records are those of the training that was not killed."""
    whole, killed = (config(tmp_path / name, hook=HOOK) for name in ('whole', 'killed'))
    for cfg in (whole, killed):  # what the other processes know
        cfg.model = {'type': 'NoisyModel'}
        cfg.train_dataloader.dataset.type = 'NoisyDataset'
    assert tiny.train_apart(whole) == 0
    assert tiny.train_apart(killed, kill_before=15) != 0
    assert tiny.train_apart(killed, resume=True) == 0
    killed = read_scalars(tmp_path / 'killed', 'batch_noise')
    assert list(killed) == [0, 10, 20, 24]
    assert killed == read_scalars(tmp_path / 'whole', 'batch_noise')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'interval': 0}, 'interval must be an integer from 1, got 0'),
        ({'batches': 1}, 'batches must be an integer from 2, got 1'),
        ({'batches': 2.0}, 'batches must be an integer from 2, got 2.0'),
    ],
)
def test_wrong_numbers(options, message):
    with pytest.raises(ValueError, match=f'BatchNoiseHook: {message}'):
        BatchNoiseHook(**options)


def test_nothing_to_measure(tmp_path):
    runner = tiny.build(config(tmp_path / 'work', hook=HOOK))
    runner.model.norm = SN(4, using_bn=False)
    with pytest.raises(UnsuitableModelError, match='BatchNoiseHook: the model has no layer that'):
        runner.train()


def test_a_single_batch(tmp_path):
    cfg = config(tmp_path / 'work', hook=HOOK, **{'train_dataloader.batch_size': 12})
    with pytest.raises(PopulationError, match=r'fewer than 2 batches.*lower batch_size'):
        tiny.build(cfg).train()


@pytest.mark.parametrize('more', [{}, {'batch_sampler': BATCHED}], ids=['plain', 'batched'])
def test_a_dataloader_that_never_ends(tmp_path, more):
    cfg = config(tmp_path / 'work', hook=HOOK)
    infinite = {**cfg.train_dataloader, 'sampler': {'type': 'InfiniteSampler'}, **more}
    runner = tiny.build(cfg)
    hook_of(runner.hooks, 'BatchNoiseHook').dataloader = infinite
    with pytest.raises(ValueError, match=r'BatchNoiseHook: dataloader\.sampler InfiniteSampler go'):
        runner.train()


def test_no_model_of_mmengine(tmp_path):
    runner = tiny.build(config(tmp_path / 'work', hook=HOOK))
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, BatchNoiseHook))
    runner.model = nn.Sequential(nn.BatchNorm2d(4))
    with pytest.raises(UnsuitableModelError, match='Sequential is no BaseModel'):
        hook.before_train(runner)


@pytest.mark.slow
def test_nan_is_told(tmp_path):
    cfg = config(tmp_path / 'work', hook=HOOK)
    runner = tiny.build(cfg)
    with torch.no_grad():
        runner.model.conv.bias[0] = torch.nan
    runner.train()
    assert 'batch noise: no record of 2 layers (norm first)' in tiny.log(tmp_path / 'work')
    assert read_scalars(tmp_path / 'work', 'batch_noise') == {}
