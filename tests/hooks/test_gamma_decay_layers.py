"""Which layers, optimizers and checkpoints GammaDecayHook takes, and what it refuses."""

import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn

from normplug.errors import UnsuitableModelError
from normplug.hooks import GammaDecayHook
from normplug.norms import SN, SW
from tests.cases import random_input
from tests.hooks import tiny_training as tiny
from tests.hooks.decay_training import (
    SAMPLES,
    Net,
    Training,
    batch,
    independent,
    runner_of,
    two_norms,
)


def test_restricted_to_some_layers(caplog):
    hook, model = GammaDecayHook(SAMPLES, layers=['2']), two_norms()
    model[2][0].weight.requires_grad_(False)
    with caplog.at_level(logging.INFO, 'gamma decay'):
        hook.before_train(runner_of(model))
    assert list(hook.strengths()) == ['2.1']
    assert '1 of 2 norms are frozen and left out' in caplog.text


def test_several_optimizers():
    model = two_norms()
    one, other = (
        OptimWrapper(torch.optim.SGD(m.parameters(), lr=1)) for m in (model[:2], model[2])
    )
    hook = GammaDecayHook(SAMPLES)
    hook.before_train(runner_of(model, OptimWrapperDict(a=one, b=other)))
    hook.before_train_iter(SimpleNamespace(iter=0), 0)
    assert set(hook.strengths()) == {'1', '2.0', '2.1'}
    model(random_input((2, 3, 4, 4))).sin().mean().backward()
    grads = [m.weight.grad.clone() for m in (model[1], model[2][0])]
    one.step()
    assert (hook.strengths()['1'] > 0).all()
    assert (hook.strengths()['2.0'] == 0).all()
    torch.testing.assert_close(
        model[1].weight.detach(), 1 - grads[0] - 2 * hook.strengths()['1'].float()
    )
    torch.testing.assert_close(model[2][0].weight.detach(), torch.ones(4))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'samples': 0.5}, 'samples must be a number from 1, got 0.5'),
        ({'samples': float('nan')}, 'samples must be a number from 1, got nan'),
        ({'scale': -1}, 'scale must be a number from 0, got -1'),
        ({'momentum': 0}, r'momentum must be a number in \(0, 1\], got 0'),
        ({'curvature': 'hessian'}, "curvature must be one of fisher, sigmoid, got 'hessian'"),
        ({'kurtosis_interval': 0}, 'kurtosis_interval must be an integer from 1, got 0'),
        ({'kurtosis_batches': 501}, 'kurtosis_batches must be an integer in 1 to kurtosis_int'),
        ({'layers': 'backbone'}, "layers must be a list of names, or None for all, got 'backbone'"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=f'GammaDecayHook: {message}'):
        GammaDecayHook(**{'samples': 8, **options})


def frozen():
    model = two_norms()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ('build', 'options', 'message'),
    [
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), {}, "no norm of normplug's"),
        (frozen, {}, 'a decay on frozen layers: none of the 3 norms trains'),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 4, 1), SN(4, frozen=True)),
            {},
            'a decay on frozen layers: none of the 1 norms',
        ),
        (lambda: nn.Sequential(SN(4), SW(4)), {}, '1 is a SW; the theory is of norms of variances'),
        (two_norms, {'layers': ['2', 'neck']}, "layers: no norm is 'neck' or in it"),
    ],
)
def test_models_without_what_it_decays(build, options, message):
    model = build()
    with pytest.raises(UnsuitableModelError, match=message):
        GammaDecayHook(8, **options).before_train(runner_of(model))
    assert not any(getattr(m, 'sample_grad_hooks', None) for m in model.modules())


def test_an_optimizer_without_gamma_and_a_compiled_model():
    model = two_norms()
    wrapper = OptimWrapper(torch.optim.SGD(model[:2].parameters(), lr=1))
    with pytest.raises(UnsuitableModelError, match=r'minimizes by the weight of 2.0 \(of 2 norms'):
        GammaDecayHook(8).before_train(runner_of(model, wrapper))
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1, maximize=True))
    with pytest.raises(UnsuitableModelError, match='minimizes by the weight of 1 '):
        GammaDecayHook(8).before_train(runner_of(model, wrapper))
    with pytest.raises(UnsuitableModelError, match='remove the key compile'):
        GammaDecayHook(8).before_train(runner_of(model, compile=True))


def saved(hook):
    checkpoint = {}
    hook.before_save_checkpoint(None, checkpoint)
    return checkpoint


@pytest.mark.parametrize(
    ('model', 'options', 'message'),
    [
        (lambda: Net(SN(4)), {'curvature': 'sigmoid'}, "curvature='fisher' there and 'sigmoid'"),
        (two_norms, {}, 'norm has 4 channels there and 0 here'),
    ],
)
def test_a_checkpoint_of_other_layers(model, options, message):
    hook = GammaDecayHook(8)
    hook.before_train(runner_of(Net(SN(4))))
    other = GammaDecayHook(8, **options)
    other.after_load_checkpoint(None, saved(hook))
    runner = runner_of(model())
    runner.iter = 5
    with pytest.raises(UnsuitableModelError, match=message):
        other.before_train(runner)


def test_fine_tuning_begins_anew_and_resuming_without_state_is_told(caplog):
    hook = GammaDecayHook(8)
    Training(Net(independent()), hook).step(*batch(3, 0))
    for iteration, state in ((0, saved(hook)), (5, {})):
        other, runner = GammaDecayHook(8), runner_of(Net(independent()))
        runner.iter = iteration
        other.after_load_checkpoint(None, state)
        other.before_train(runner)
        assert (other.strengths()['norm'] == 0).all()
    assert (hook.strengths()['norm'] > 0).all()
    assert caplog.text.count('the checkpoint has no averages') == 1


@pytest.mark.slow
@pytest.mark.parametrize('curvature', ['fisher', 'sigmoid'])
def test_resumed_within_an_estimate_of_the_kurtosis(tmp_path, curvature):
    cfgs = [tiny.config(tmp_path / name, by_epoch=False) for name in ('alone', 'killed')]
    for cfg in cfgs:
        cfg.custom_hooks += [
            {
                'type': 'GammaDecayHook',
                'samples': 2,
                'scale': 50.0,
                'curvature': curvature,
                'kurtosis_interval': 10,
                'kurtosis_batches': 4,
            }
        ]
    assert tiny.train_apart(cfgs[0]) == 0
    assert tiny.train_apart(cfgs[1], kill_before=14) == -9
    (state,) = tiny.load(cfgs[1].work_dir)['gamma_decay']
    assert state['inputs'][0].min() > 0
    assert state['kurtosis'].abs().min() > 0
    assert tiny.train_apart(cfgs[1], resume=True) == 0
    done = [tiny.load(cfg.work_dir) for cfg in cfgs]
    tiny.assert_same_training(*done)
    tiny.assert_equal(*(checkpoint['gamma_decay'] for checkpoint in done), 'gamma_decay')
