"""Whitened layers over a training, interrupted or not; what the hook refuses."""

import mmengine.runner.runner
import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import HOOKS
from torch import nn
from torch.nn.utils import parametrizations, prune

from normplug.covariance import Covariances
from normplug.errors import UnsuitableModelError
from normplug.hooks import WhiteningHook
from normplug.hooks.of_runner import averaged_models
from normplug.whitened import WhitenedLayer, WhiteningError, WNNConv, whitened_layers
from normplug.whitened.decay import decay_canonical_weights
from tests.hooks import tiny_training as tiny

CONVS = ('WNNConv', 'PreGWNNConv', 'PostGWNNConv', 'EigenConv')
SGD = {'type': 'SGD', 'lr': 0.05, 'momentum': 0.9, 'weight_decay': 1e-3}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.setattr(mmengine.runner.runner, 'collect_env', dict)  # asks compilers for a second


def config(work_dir, kind='WNNConv', optimizer=SGD, norm='SN', **options):
    cfg = tiny.config(work_dir, by_epoch=False)
    cfg.experiment_name = f'{work_dir.parent.name}-{work_dir.name}'
    cfg.model.conv = {'type': kind} if kind else None
    cfg.model.norm = norm
    cfg.optim_wrapper.optimizer = optimizer
    cfg.custom_hooks += [{'type': 'WhiteningHook', 'interval': 7, 'batches': 4, **options}]
    return cfg


def watched(runner):
    """What the convolutions of the model, and of its averages, make of one image, and c, around
    each rewriting."""
    x, found = torch.randn(1, 3, 4, 4), []
    hook = next(h for h in runner.hooks if isinstance(h, WhiteningHook))
    rewrite = hook.after_train_iter

    def outputs():
        models = [runner.model, *(copy.module for copy in averaged_models(runner))]
        return [model.conv(x).detach() for model in models]

    def around(runner, *args, **kwargs):
        runner.model.eval()
        before, old = outputs(), runner.model.conv.in_mean.clone()
        rewrite(runner)
        new = runner.model.conv.in_mean.clone()
        if not torch.equal(new, old):
            found.append((runner.iter, new, before, outputs()))
        runner.model.train()

    hook.after_train_iter = around
    return found


@pytest.mark.parametrize('kind', CONVS)
def test_every_interval_the_layer_changes_and_its_function_does_not(tmp_path, kind):
    cfg = config(tmp_path / 'work', kind)
    if kind == 'PreGWNNConv':
        cfg.model.conv.rank = 1.0
    runner = tiny.build(cfg)
    found = watched(runner)
    runner.train()
    assert [iteration for iteration, *_ in found] == [6, 13, 20]
    for *_, before, after in found:
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    assert not torch.equal(found[0][1], found[1][1])
    text = tiny.log(tmp_path / 'work')
    assert text.count('whitening: 1 layers in new coordinates') == 3
    assert int(runner.model.conv.seen_in.count) == 0  # 21 to 23 are not noted
    assert not runner.model.conv.sampling


@pytest.mark.slow
@pytest.mark.parametrize(
    ('kind', 'optimizer'),
    [('PreGWNNConv', SGD), ('EigenConv', SGD), ('PostGWNNConv', {'type': 'AdamW', 'lr': 0.01})],
    ids=['PreGWNN, SGD', 'EigenNet, SGD', 'PostGWNN, AdamW'],
)
def test_killed_in_an_interval_and_resumed_is_the_same_to_the_last_bit(tmp_path, kind, optimizer):
    """The checkpoint of iteration 12 has two of four noted batches."""
    cfgs = [config(tmp_path / name, kind, optimizer) for name in ('alone', 'killed')]
    for cfg in cfgs:
        cfg.custom_hooks += [{'type': 'EMAHook'}]
    assert tiny.train_apart(cfgs[0]) == 0
    assert tiny.train_apart(cfgs[1], kill_before=15) == -9
    saved = tiny.load(tmp_path / 'killed')
    assert saved['meta']['iter'] == 12
    assert saved['state_dict']['conv.seen_in.count'] > 0
    assert tiny.train_apart(cfgs[1], resume=True) == 0
    tiny.assert_same_training(*(tiny.load(tmp_path / name) for name in ('alone', 'killed')))


@pytest.mark.parametrize('update_buffers', [False, True])
def test_the_average_of_an_ema_is_rewritten_too(tmp_path, update_buffers):
    cfg = config(tmp_path / 'work', 'EigenConv')
    cfg.custom_hooks += [{'type': 'EMAHook', 'momentum': 0.1, 'update_buffers': update_buffers}]
    runner = tiny.build(cfg)
    found = watched(runner)
    runner.train()
    for _, mean, before, after in found:
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
        assert not torch.equal(after[0], after[1])  # an average, and no copy
        assert mean.any()


@HOOKS.register_module()
class WatchMomentum(mmengine.hooks.Hook):
    """The step that the momentum is, in the coordinates of W, around each rewriting."""

    priority = 'VERY_LOW'

    def after_train_iter(self, runner, *args, **kwargs):
        """After the rewriting."""
        conv = runner.model.conv
        state = runner.optim_wrapper.optimizer.state[conv.weight]
        runner.steps = [*getattr(runner, 'steps', []), state['momentum_buffer'].clone()]


@pytest.mark.parametrize('momentum', ['carry', 'reset'])
def test_momentum(tmp_path, momentum):
    cfg = config(tmp_path / 'work', momentum=momentum)
    cfg.custom_hooks += [{'type': 'WatchMomentum'}]
    runner = tiny.build(cfg)
    runner.train()
    zero = [not step.any() for step in runner.steps]
    assert zero == [momentum == 'reset' and i in (6, 13, 20) for i in range(24)]


def written(decay):
    """A layer in coordinates of its own, and SGD without a loss."""
    layer = WNNConv(3, 4, 3, eps=0.1).double()
    layer.in_matrix.copy_(torch.randn(3, 3))
    layer.in_mean.normal_()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-3, weight_decay=0.1)
    handle = decay_canonical_weights(optimizer, [layer]) if decay == 'canonical' else None
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return layer, optimizer, handle


def half_squares(layer):
    return sum(0.5 * t.square().sum() for t in layer.canonical())


def test_canonical_weight_decay_is_that_of_w_and_b():
    """A small step of the decay goes down the steepest way of λ/2 (|W|² + |b|²), in V and d."""
    layer, optimizer, handle = written('canonical')
    grads = torch.autograd.grad(half_squares(layer), list(layer.parameters()))
    before = [p.detach().clone() for p in layer.parameters()]
    optimizer.step()
    for parameter, old, grad in zip(layer.parameters(), before, grads, strict=True):
        torch.testing.assert_close(parameter.detach(), old - 1e-3 * 0.1 * grad)
    handle.remove()
    before = [p.detach().clone() for p in layer.parameters()]
    for parameter in layer.parameters():
        parameter.grad.zero_()
    optimizer.step()
    for parameter, old in zip(layer.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), (1 - 1e-4) * old)


OTHERS = r'\(SGD, .*\), and optim_wrapper.optimizer is {} and none of them: take one of them, or'


@pytest.mark.parametrize(
    ('optimizer', 'message'),
    [
        (lambda p: torch.optim.AdamW(p), OTHERS.format('AdamW')),
        (lambda p: torch.optim.Adafactor(p), OTHERS.format('Adafactor')),
        (lambda p: torch.optim.Rprop(p), OTHERS.format('Rprop')),
        (lambda p: torch.optim.SGD(p, fused=True), 'is SGD with fused=True: remove that, or'),
        (lambda p: torch.optim.SGD(p, maximize=True), 'is SGD with maximize=True: remove'),
        (
            lambda p: torch.optim.NAdam(p, decoupled_weight_decay=True),
            'is NAdam with decoupled_weight_decay=True: remove that',
        ),
    ],
)
def test_canonical_weight_decay_refuses_optimizers_it_would_be_wrong_for(optimizer, message):
    layer = WNNConv(3, 4, 3)
    told = rf"WhiteningHook: weight_decay='canonical' .*{message}.* set weight_decay='written'"
    with pytest.raises(UnsuitableModelError, match=told):
        decay_canonical_weights(optimizer(layer.parameters()), [layer])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(interval=0), 'interval must be an integer from 1, got 0'),
        (dict(interval=2.5), 'interval must be an integer'),
        (dict(batches=0), 'batches must be an integer from 1, got 0'),
        (dict(interval=3, batches=4), 'batches=4 must not be more than interval=3'),
        (dict(momentum='keep'), "momentum must be one of .*, got 'keep'"),
        (dict(weight_decay='none'), "weight_decay must be one of .*, got 'none'"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        WhiteningHook(**options)


def test_a_model_without_whitened_layers_is_refused(tmp_path):
    with pytest.raises(
        UnsuitableModelError, match=r"no whitened layer .* conv_cfg=dict\(type='WNN"
    ):
        tiny.build(config(tmp_path / 'work', None)).train()


def test_gradients_that_wait_are_refused(tmp_path):
    cfg = config(tmp_path / 'work')
    cfg.optim_wrapper.accumulative_counts = 2
    with pytest.raises(UnsuitableModelError, match=r'interval=7 must be a multiple of .*counts=2'):
        tiny.build(cfg).train()


def test_too_few_samples_stop_the_training_and_change_no_layer(tmp_path):
    runner = tiny.build(config(tmp_path / 'work', interval=1, batches=1))
    conv = runner.model.conv
    seen = conv.seen_in.add
    conv.seen_in.add = lambda moments, count: seen(moments, 2)
    with pytest.raises(WhiteningError, match=r'conv: a covariance of 3 channels .* there are 2'):
        runner.train()
    torch.testing.assert_close(conv.in_matrix, torch.eye(3))


def test_frozen_layers_are_left_alone(tmp_path):
    runner = tiny.build(config(tmp_path / 'work'))
    runner.model.conv.weight.requires_grad = False
    with pytest.raises(UnsuitableModelError, match='no whitened layer that trains'):
        runner.train()
    assert isinstance(runner.model.conv, WhitenedLayer)
    assert isinstance(runner.model.conv, nn.Conv2d)


def test_a_layer_that_saw_nothing_keeps_its_coordinates(tmp_path):
    runner = tiny.build(config(tmp_path / 'work'))
    runner.model.unused = WNNConv(3, 4, 3)
    runner.train()
    assert runner.model.conv.in_mean.any()
    torch.testing.assert_close(runner.model.unused.in_matrix, torch.eye(3))
    line = 'whitening: 1 layers in new coordinates'
    assert f'{line}' in tiny.log(tmp_path / 'work')
    assert ', 1 saw nothing and stay as they are' in tiny.log(tmp_path / 'work')


def test_a_new_training_forgets_what_another_noted(tmp_path):
    runner = tiny.build(config(tmp_path / 'work'))
    conv = runner.model.conv
    conv.seen_in.add(Covariances(torch.full((3,), 100.0), torch.eye(3)), 10**6)
    conv.seen_in.gather()
    runner.train()
    assert conv.in_mean.abs().max() < 10


class Averaging(nn.Module):
    """A momentum encoder, as of self-supervised models."""

    def __init__(self, conv):
        super().__init__()
        self.conv, self.momentum = conv, ExponentialMovingAverage(conv)


def test_averages_inside_of_a_model_are_refused(tmp_path):
    runner = tiny.build(config(tmp_path / 'work'))
    runner.model.extra = Averaging(WNNConv(3, 4, 1))
    with pytest.raises(UnsuitableModelError, match='a part of the model is the moving average'):
        runner.train()


def test_efficient_conv_bn_eval_is_refused(tmp_path):
    cfg = config(tmp_path / 'work')
    runner = tiny.build(cfg)
    runner.cfg.efficient_conv_bn_eval = 'dropout'
    with pytest.raises(UnsuitableModelError, match='efficient_conv_bn_eval reads the weights'):
        runner.train()


def shared():
    model = nn.Sequential(WNNConv(4, 4, 1), WNNConv(4, 4, 1))
    model[1].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    'model',
    [
        shared,
        lambda: nn.Sequential(parametrizations.spectral_norm(WNNConv(4, 4, 1))),
        lambda: nn.Sequential(prune.l1_unstructured(WNNConv(4, 4, 1), 'weight', 0.3)),
    ],
)
def test_a_weight_that_is_not_the_layers_own_is_refused(model):
    with pytest.raises(UnsuitableModelError, match=r'must be a parameter of its own'):
        whitened_layers(model())
    twice = nn.ModuleList([layer := WNNConv(4, 4, 1), layer])
    assert list(whitened_layers(twice)) == ['0']
