"""The radius of SSN over a training, interrupted or not, and from a checkpoint."""

import mmengine.runner.runner
import pytest
import torch

from normplug.errors import UnsuitableModelError
from normplug.norms.ssn import set_radius
from tests.hooks import tiny_training as tiny

HOOKS = ('SampleSeedHook', 'SSNRadiusHook', 'RatioGradClipHook', 'NormRatioHook')
STATE = ('radius', 'mean_choice', 'var_choice')


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.setattr(mmengine.runner.runner, 'collect_env', dict)  # asks compilers for a second


def config(work_dir, hooks=HOOKS, **options):
    cfg = tiny.config(work_dir, hooks=hooks, **options)
    # mmengine keeps one logger and one message hub an experiment name and second.
    cfg.experiment_name = f'{work_dir.parent.name}-{work_dir.name}'
    cfg.model.norm = 'SSN'
    return cfg


def watched(runner):
    """The radius in every forward pass of training."""
    radii, layer = [], runner.model.norm
    layer.register_forward_pre_hook(
        lambda *_: radii.append(layer.radius.item()) if layer.training else None
    )
    return radii


def ramp(start=0.0, end=1.0, steps=24):
    return pytest.approx([start + (end - start) * i / steps for i in range(steps)], abs=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize('by_epoch', [True, False])
def test_the_radius_is_the_share_that_is_done_and_all_is_decided(tmp_path, by_epoch):
    runner = tiny.build(config(tmp_path / 'work', by_epoch=by_epoch))
    radii = watched(runner)
    runner.train()
    assert radii == ramp()
    for choice in (runner.model.norm.mean_choice, runner.model.norm.var_choice):
        assert sorted(choice.tolist()) == [0, 0, 1]


@pytest.mark.slow
@pytest.mark.parametrize('by_epoch', [True, False])
def test_killed_and_resumed_is_the_same_to_the_last_bit(tmp_path, by_epoch):
    assert tiny.train_apart(config(tmp_path / 'alone', by_epoch=by_epoch)) == 0
    cfg = config(tmp_path / 'killed', by_epoch=by_epoch)
    assert tiny.train_apart(cfg, kill_before=15) == -9
    radius = tiny.load(tmp_path / 'killed')['state_dict']['norm.radius'].item()
    assert radius == pytest.approx(11 / 24)
    assert tiny.train_apart(cfg, resume=True) == 0
    tiny.assert_same_training(tiny.load(tmp_path / 'alone'), tiny.load(tmp_path / 'killed'))


def fine_tuned(tmp_path, change, name='work', **hook):
    """A runner of a model with a changed layer, before its training."""
    cfg = config(tmp_path / name, hooks=())
    cfg.custom_hooks = [{'type': 'SSNRadiusHook', **hook}]
    runner = tiny.build(cfg)
    with torch.no_grad():
        change(runner.model.norm)
    path = tmp_path / f'{name}.pth'
    torch.save({'state_dict': runner.model.state_dict()}, path)
    cfg.load_from = str(path)
    cfg.experiment_name += '-again'
    return tiny.build(cfg)


@pytest.mark.slow
def test_fine_tuning_goes_on_from_the_radius_in_the_checkpoint(tmp_path):
    runner = fine_tuned(tmp_path, lambda layer: layer.radius.fill_(0.25), end=0.75)
    radii = watched(runner)
    runner.train()
    assert radii == ramp(0.25, 0.75)


@pytest.mark.slow
def test_a_decided_layer_stays_as_it_is(tmp_path):
    def decide(layer):
        layer.mean_weight[2] += 3
        layer.var_weight[0] += 3
        set_radius(layer, 0.9)

    runner = fine_tuned(tmp_path, decide, end=0.5)
    radii = watched(runner)
    runner.train()
    assert radii == pytest.approx([0.9] * 24)
    assert runner.model.norm.mean_choice.tolist() == [0, 0, 1]
    assert runner.model.norm.var_choice.tolist() == [1, 0, 0]
    assert '1 layers have decided before' in tiny.log(tmp_path / 'work')


@pytest.mark.slow
def test_layers_begin_where_each_stands(tmp_path):
    """A neck without a radius yet does not jump to that of the backbone that it is put on."""
    cfg = config(tmp_path / 'work', hooks=('SSNRadiusHook',))
    runner = tiny.build(cfg)
    model = runner.model
    model.norm.radius.fill_(0.5)
    model.head = torch.nn.Sequential(type(model.norm)(4), model.head)
    runner.optim_wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
    radii, new = watched(runner), []
    model.head[0].register_forward_pre_hook(
        lambda layer, _: new.append(layer.radius.item()) if layer.training else None
    )
    runner.train()
    assert radii == ramp(0.5)
    assert new == ramp()


@pytest.mark.slow
def test_resumed_from_a_training_without_the_hook(tmp_path):
    """The published schedule from there on, and the same after another interruption."""
    cfg = config(tmp_path / 'work', hooks=('SampleSeedHook',), by_epoch=False)
    assert tiny.train_apart(cfg, kill_before=7) == -9
    cfg.custom_hooks = [{'type': 'SampleSeedHook'}, {'type': 'SSNRadiusHook'}]
    assert tiny.train_apart(cfg, resume=True, kill_before=13) == -9
    runner = tiny.build(cfg, resume=True)
    radii = watched(runner)
    runner.train()
    assert radii == pytest.approx([i / 24 for i in range(12, 24)], abs=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize('update_buffers', [True, False])
def test_the_averaged_model_has_the_same_radius_and_choices(tmp_path, update_buffers):
    cfg = config(tmp_path / 'work', hooks=('SSNRadiusHook',))
    ema = {'type': 'EMAHook', 'ema_type': 'ExponentialMovingAverage', 'momentum': 0.1}
    cfg.custom_hooks = [*cfg.custom_hooks, {**ema, 'update_buffers': update_buffers}]
    runner = tiny.build(cfg)
    runner.train()
    (hook,) = (hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook')
    averaged, layer = hook.ema_model.module.norm, runner.model.norm
    assert layer.mean_choice.sum() == layer.var_choice.sum() == 1
    for name in STATE:
        assert torch.equal(getattr(averaged, name), getattr(layer, name)), name
    assert not torch.equal(averaged.weight, layer.weight)
    saved = tiny.load(tmp_path / 'work')['state_dict']
    assert torch.equal(saved['norm.weight'], averaged.weight)
    assert torch.equal(saved['norm.mean_choice'], layer.mean_choice)


def before_train(tmp_path, norm='SSN', radius=0.0, **hook):
    cfg = config(tmp_path / 'work', hooks=())
    cfg.model.norm = norm
    cfg.custom_hooks = [{'type': 'SSNRadiusHook', **hook}]
    runner = tiny.build(cfg)
    if radius:
        runner.model.norm.radius.fill_(radius)
    runner.train()


@pytest.mark.parametrize('end', [-0.1, 1.5, float('nan'), '1'])
def test_wrong_end(tmp_path, end):
    with pytest.raises(ValueError, match=r'end must lie in \[0, 1\]'):
        before_train(tmp_path, end=end)


def test_no_ssn(tmp_path):
    with pytest.raises(
        UnsuitableModelError, match='the model has no SSN that trains; remove the hook'
    ):
        before_train(tmp_path, norm='SN')


def test_already_above_the_end(tmp_path):
    with pytest.raises(
        UnsuitableModelError, match=r'radius of norm stands at 0.750 already, above end=0.5'
    ):
        before_train(tmp_path, radius=0.75, end=0.5)
