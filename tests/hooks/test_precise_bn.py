"""Precise BN in the course of a training."""

import mmengine.runner.runner
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import nn

from normplug import SN
from normplug.hooks import PreciseBNStatsHook
from normplug.population import PopulationError, estimate_population, population_loader
from tests.hooks import precise_training  # noqa: F401 - registers PlainDataset, ValidatedHook
from tests.hooks import tiny_training as tiny

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.setattr(mmengine.runner.runner, 'collect_env', dict)  # asks compilers for a second


def config(work_dir, *hooks, by_epoch=True, **options):
    cfg = tiny.config(work_dir, by_epoch=by_epoch, **options)
    # mmengine keeps one logger and one message hub an experiment name and second.
    cfg.experiment_name = f'{work_dir.parent.name}-{work_dir.name}'
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.type = 'PlainDataset'
    cfg.train_dataloader.batch_size = 5  # batches of 5, 5 and 2 in a pass
    cfg.custom_hooks = [*cfg.custom_hooks, *({'type': hook} for hook in hooks)]
    return cfg


def hook_of(runner, name):
    return next(hook for hook in runner.hooks if type(hook).__name__ == name)


def population(state, cfg):
    """The statistics that a model of these weights should have."""
    cfg = Config(cfg.to_dict())
    cfg.experiment_name += '-again'
    model = tiny.build(cfg).model
    model.load_state_dict(state)
    estimate_population(model, population_loader(cfg, seed=7), 200)
    return model.state_dict()


def assert_population(state, cfg):
    for name, value in population(state, cfg).items():
        torch.testing.assert_close(state[name], value, rtol=1e-6, atol=1e-6, msg=name)


@pytest.mark.parametrize('by_epoch', [True, False])
def test_training_is_the_same_and_the_checkpoint_is_what_was_validated(tmp_path, by_epoch):
    tiny.build(config(tmp_path / 'without', by_epoch=by_epoch)).train()
    cfg = config(tmp_path / 'with', 'PreciseBNStatsHook', 'ValidatedHook', by_epoch=by_epoch)
    runner = tiny.build(cfg)
    runner.train()

    one, other = tiny.load(tmp_path / 'without'), tiny.load(tmp_path / 'with')
    for key in ('optimizer', 'param_schedulers', 'random_states'):
        tiny.assert_equal(one[key], other[key], key)
    differing = {n for n, v in one['state_dict'].items() if not v.equal(other['state_dict'][n])}
    assert differing == {'norm.running_mean', 'norm.running_var'}

    states = hook_of(runner, 'ValidatedHook').states
    assert len(states) == 4
    tiny.assert_equal(dict(states[-1]), dict(other['state_dict']), 'state_dict')
    assert_population(other['state_dict'], cfg)


def test_validation_alone(tmp_path):
    """Statistics are there whoever asks for the validation."""
    cfg = config(tmp_path / 'work', 'PreciseBNStatsHook', 'ValidatedHook')
    runner = tiny.build(cfg)
    hook_of(runner, 'ValidatedHook').states = []
    runner.val()
    assert_population(hook_of(runner, 'ValidatedHook').states[0], cfg)


@pytest.mark.parametrize(
    ('norm', 'update_buffers'), [('SN', True), ('SN', False), ('SW', False), ('IterNorm', False)]
)
def test_of_the_averaged_model(tmp_path, norm, update_buffers):
    cfg = config(tmp_path / 'work', 'PreciseBNStatsHook', 'ValidatedHook')
    cfg.model.norm = norm
    ema = {'type': 'EMAHook', 'ema_type': 'ExponentialMovingAverage', 'momentum': 0.1}
    cfg.custom_hooks = [*cfg.custom_hooks, {**ema, 'update_buffers': update_buffers}]
    runner = tiny.build(cfg)
    runner.train()
    for state in hook_of(runner, 'ValidatedHook').states:
        assert_population(state, cfg)
    saved = tiny.load(tmp_path / 'work')
    assert_population(saved['state_dict'], cfg)
    assert not torch.equal(runner.model.conv.weight, saved['state_dict']['conv.weight'])


def test_killed_and_resumed_is_the_same_to_the_last_bit(tmp_path):
    alone = config(tmp_path / 'alone', 'PreciseBNStatsHook')
    tiny.build(alone).train()
    # The process ends after the validation of the second epoch: it took place for this one alone.
    killed = config(tmp_path / 'killed', 'PreciseBNStatsHook', 'Stop')
    with pytest.raises(KeyboardInterrupt):
        tiny.build(killed).train()
    resumed = config(tmp_path / 'killed', 'PreciseBNStatsHook')
    tiny.build(resumed, resume=True).train()
    tiny.assert_same_training(tiny.load(tmp_path / 'alone'), tiny.load(tmp_path / 'killed'))


@HOOKS.register_module()
class Stop(Hook):
    """Ctrl-C in the third epoch."""

    def before_train_iter(self, runner, *args, **kwargs):
        if runner.iter == 7:
            raise KeyboardInterrupt


def test_no_more_batches_than_asked_for(tmp_path):
    cfg = config(tmp_path / 'work', 'PreciseBNStatsHook')
    cfg.custom_hooks[-1].num_batches = 2
    tiny.build(cfg).train()
    assert 'precise BN: running statistics recomputed from 2 batches' in tiny.log(tmp_path / 'work')


@pytest.mark.parametrize('number', [0, '5', 2.0])
def test_wrong_number(number):
    with pytest.raises(ValueError, match=f'num_batches must be an integer from 1, got {number!r}'):
        PreciseBNStatsHook(num_batches=number)


def test_the_old_name_is_an_alias_and_the_name_in_mmpretrain_stays_free():
    assert HOOKS.get('BatchAverageHook') is PreciseBNStatsHook is HOOKS.get('PreciseBNStatsHook')
    assert 'PreciseBNHook' not in HOOKS.module_dict


def test_nothing_to_recompute(tmp_path):
    cfg = config(tmp_path / 'work', 'PreciseBNStatsHook')
    runner = tiny.build(cfg)
    runner.model.norm = SN(4, using_bn=False)
    with pytest.raises(PopulationError, match='PreciseBNStatsHook: the model has no norm'):
        runner.train()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in runner.model.modules())
