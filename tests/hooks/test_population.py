"""Estimates of what PN normalizes by, in the course of a training."""

import mmengine.runner.runner
import pytest
import torch
from mmengine.hooks import Hook

from normplug import KN
from normplug.errors import UnsuitableModelError
from normplug.hooks import GammaDecayHook, PopulationHook
from normplug.population import PopulationError
from tests.hooks import tiny_training as tiny
from tests.hooks.population_training import (
    DRAWN,
    ESTIMATED,
    WARMUP,
    StatesHook,
    assert_estimated,
    config,
    moved,
    states_of,
)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.setattr(mmengine.runner.runner, 'collect_env', dict)  # asks compilers for a second


def test_estimates_at_the_end_of_the_warm_up_and_every_interval(tmp_path):
    runner, states = states_of(tmp_path / 'work', **ESTIMATED)
    # In the warm-up every batch moves them; 5 = WARMUP + 1 is the first of every INTERVAL.
    assert moved(states, 'running_var') == [1, 2, 3, 4, 5, 10, 15, 20]
    for done in (WARMUP, 5, 20):
        assert_estimated(runner, states[done], done)
    text = tiny.log(tmp_path / 'work')
    assert text.count('mean and variance of 2 layers, estimated from 3 batches') == 5


def test_no_estimate_in_the_warm_up(tmp_path):
    tiny.build(config(tmp_path / 'work', population='estimated', warmup=7)).train()
    text = tiny.log(tmp_path / 'work')
    assert text.count('mean and variance of 2 layers, estimated') == 4  # at 7, 10, 15 and 20


def test_a_running_population_gets_its_kurtosis_alone(tmp_path):
    runner, states = states_of(tmp_path / 'work', **DRAWN)
    assert moved(states, 'kurtosis') == [WARMUP, 5, 10, 15, 20]
    assert moved(states, 'running_var') == list(range(1, 25))
    assert states[20]['norm.0.kurtosis'].abs().max() > 1
    assert_estimated(runner, states[20], 20, names=())
    assert 'kurtosis of 2 layers, estimated from 3 batches' in tiny.log(tmp_path / 'work')


def test_both(tmp_path):
    runner, states = states_of(tmp_path / 'work', **DRAWN, population='estimated')
    assert_estimated(runner, states[15], 15)


def test_without_a_warm_up_before_the_first_iteration(tmp_path):
    runner, states = states_of(tmp_path / 'work', population='estimated', warmup=0)
    assert moved(states, 'running_var') == [5, 10, 15, 20]
    assert_estimated(runner, states[0], 0)


def test_no_hook_takes_the_first_estimate_for_a_training_iteration(tmp_path):
    """ρ of gamma decay is that of one iteration's inputs, not also of the estimate's batches."""
    cfg = config(tmp_path / 'work', hook=False, population='estimated', warmup=0)
    decay = {'type': 'GammaDecayHook', 'samples': 4, 'kurtosis_interval': 30, 'kurtosis_batches': 9}
    cfg.custom_hooks = [*cfg.custom_hooks, decay, {'type': 'PopulationHook', 'num_batches': 3}]
    cfg.train_cfg.max_iters = 1
    runner = tiny.build(cfg)
    hook = next(h for h in runner.hooks if isinstance(h, GammaDecayHook))
    counts = []
    runner.register_hook(
        CountsHook(lambda: counts.extend(hook._decays[0].estimate.inputs.total[0]))
    )
    runner.train()
    assert set(map(float, counts)) == {8.0}  # two images of 2 × 2


class CountsHook(Hook):
    """Calls what it gets after an iteration."""

    priority = 'LOWEST'

    def __init__(self, then):
        self.then = then

    def after_train_iter(self, runner, *args, **kwargs):
        self.then()


def test_the_first_estimate_leaves_all_modes(tmp_path):
    runner = tiny.build(config(tmp_path / 'work', population='estimated', warmup=0))
    runner.model.dropout.eval()
    runner.model.norm[2].eval()
    hook = next(h for h in runner.hooks if isinstance(h, PopulationHook))
    hook.before_train(runner)
    assert [runner.model.training, runner.model.dropout.training] == [True, False]
    assert not runner.model.norm[2].training
    assert_estimated(runner, runner.model.state_dict(), 0)


def test_a_batch_sampler_is_set_to_the_iteration_and_keeps_nothing(tmp_path):
    cfg = config(tmp_path / 'work', **ESTIMATED)
    cfg.train_dataloader.batch_sampler = {'type': 'OddOrEven'}
    runner = tiny.build(cfg)
    hook = next(h for h in runner.hooks if isinstance(h, PopulationHook))
    hook.before_train(runner)
    runner.model.train()
    orders = []
    for done in (5, 5, 10):
        runner.model.seen.clear()
        hook._estimate(runner, hook._layers, done)
        orders.append(list(runner.model.seen))
    assert orders[0] == orders[1] != orders[2]
    assert all((a - b) % 2 == 0 for a, b in orders[0])


def test_counts_are_read_while_a_warm_up_can_end_and_then_now_and_then(tmp_path):
    """The second layer is far from the end of its warm-up."""
    runner = tiny.build(config(tmp_path / 'work', **ESTIMATED))
    runner.model.norm[2].num_batches_tracked.fill_(-1000)
    hook = next(h for h in runner.hooks if isinstance(h, PopulationHook))
    own, reads = hook._counts, []
    hook._counts = lambda names: (reads.append(runner.iter + 1), own(names))[1]
    runner.train()
    assert reads == [1, 1, 2, 3, 4, 5, 10, 15, 20]
    assert 'of 1 layers, estimated' in tiny.log(tmp_path / 'work')


def test_a_counted_checkpoint_keeps_its_statistics_until_the_interval(tmp_path):
    cfg = config(tmp_path / 'work', hooks=['StatesHook'], **ESTIMATED)
    runner = tiny.build(cfg)
    for layer in (runner.model.norm[0], runner.model.norm[2]):
        layer.num_batches_tracked.fill_(WARMUP)
        layer.running_var.fill_(3.0)
    runner.train()
    states = next(h for h in runner.hooks if isinstance(h, StatesHook)).states
    assert moved(states, 'running_var') == [5, 10, 15, 20]


def test_estimates_change_nothing_else(tmp_path):
    """Random numbers, optimizer, weights: with kurtosis of a layer whose noise has no use of it."""
    results = []
    for name, hook in (('without', False), ('with', True)):
        runner = tiny.build(config(tmp_path / name, hook, 'NoisyDataset', **DRAWN))
        for layer in (runner.model.norm[0], runner.model.norm[2]):
            layer.warmup = 2
            # Numbers of 0 in place of those drawn: what ρ is does not matter.
            layer.drawn = lambda x, own=layer: (
                *(torch.zeros(4) for _ in range(2)),
                own.kurtosis.clone(),
            )
        runner.train()
        results.append(tiny.load(tmp_path / name))
    one, other = results
    for key in ('optimizer', 'param_schedulers', 'random_states'):
        tiny.assert_equal(one[key], other[key], key)
    differing = {n for n, v in one['state_dict'].items() if not v.equal(other['state_dict'][n])}
    assert differing == {'norm.0.kurtosis', 'norm.2.kurtosis'}


@pytest.mark.slow
@pytest.mark.parametrize('stop', [3, 8, 15])
@pytest.mark.parametrize(
    'options',
    [ESTIMATED, DRAWN, {**DRAWN, 'population': 'estimated'}],
    ids=['est', 'drawn', 'both'],
)
def test_killed_and_resumed_is_the_same_to_the_last_bit(tmp_path, options, stop):
    cfgs = [config(tmp_path / n, dataset='NoisyDataset', **options) for n in ('alone', 'killed')]
    for cfg in cfgs:
        cfg.default_hooks.checkpoint.interval = 3
    assert tiny.train_apart(cfgs[0], prepare=registered) == 0
    assert tiny.train_apart(cfgs[1], prepare=registered, kill_before=stop) == -9
    assert tiny.train_apart(cfgs[1], prepare=registered, resume=True) == 0
    tiny.assert_same_training(*(tiny.load(tmp_path / name) for name in ('alone', 'killed')))


def registered(cfg):
    """A new process that gets this function has imported this file, and its types."""


# What is refused


def test_without_the_hook(tmp_path):
    with pytest.raises(ValueError, match=r"nothing estimates it.*type='PopulationHook'"):
        tiny.build(config(tmp_path / 'work', hook=False, **ESTIMATED)).train()


@pytest.mark.parametrize('options', [{}, {'noise': 'mean', 'samples': 2}, {'frozen': True}])
def test_nothing_to_estimate(tmp_path, options):
    with pytest.raises(UnsuitableModelError, match='PopulationHook: the model has no PN'):
        tiny.build(config(tmp_path / 'work', **options)).train()


@pytest.mark.parametrize('value', [0, -1, 2.0, True, '5'])
@pytest.mark.parametrize('name', ['interval', 'num_batches'])
def test_wrong_numbers(name, value):
    with pytest.raises(ValueError, match=f'PopulationHook: {name} must be an integer from 1, got'):
        PopulationHook(**{name: value})


def test_a_sampler_that_cannot_be_set(tmp_path):
    cfg = config(tmp_path / 'work', **ESTIMATED)
    cfg.custom_hooks[-1].dataloader = cfg.train_dataloader  # of an InfiniteSampler
    runner = tiny.build(cfg)
    with pytest.raises(UnsuitableModelError, match=r'InfiniteSampler .*goes on'):
        runner.train()
    assert runner.iter == 0


def test_a_model_with_kn(tmp_path):
    runner = tiny.build(config(tmp_path / 'work', **ESTIMATED))
    runner.model.norm.append(KN(4))
    with pytest.raises(PopulationError, match=r'norm\.3 is a KN'):
        runner.train()
    assert runner.iter == 0
