"""Which layers, optimizers and checkpoints GammaDecayHook takes, and what it refuses."""

import json
import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn

import normplug
from normplug.errors import UnsuitableModelError, UserError
from normplug.hooks import GammaDecayHook
from normplug.norms import BIN, CBN, EBN, IBN, MABN, SN, SW
from normplug.reports.plot_batch_noise import main_plot_batch_noise
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


def probabilities(logits):
    powers = [2.718281828459045**v for v in logits.tolist()]
    return [p / sum(powers) for p in powers]


@pytest.mark.parametrize('kind', ['IBN', 'SN', 'SSN', 'KN', 'PN', 'BRN'])
def test_only_the_noise_of_batch_statistics_counts(kind):
    """ζ written out: of a share w of the batch, w² of either term."""
    norm = IBN(4, ratio=0.25) if kind == 'IBN' else getattr(normplug, kind)(4)
    of_mean, of_var = torch.ones(4), torch.ones(4)
    if kind == 'IBN':
        of_mean[0] = of_var[0] = 0
    if kind == 'SN':
        with torch.no_grad():
            norm.mean_weight.copy_(torch.tensor([0.3, -0.5, 0.9]))
            norm.var_weight.copy_(torch.tensor([0.0, 2.0, 0.5]))
    if kind == 'SSN':  # decided: the mean by BN, the variance by LN
        norm.radius.fill_(1.0)
        with torch.no_grad():
            norm.mean_weight.copy_(torch.tensor([0.0, 0.0, 9.0]))
            norm.var_weight.copy_(torch.tensor([0.0, 9.0, 0.0]))
        of_var *= 0
    if kind == 'KN':
        from normplug.kalman import link_kalman

        link_kalman(norm, lambda: norm(torch.zeros(1, 4, 2, 2)))
    hook, model = GammaDecayHook(SAMPLES, kurtosis_batches=1), Net(norm)
    Training(model, hook).step(*batch(5, 0))
    estimate = hook._decays[0].estimate
    fisher, curvature = estimate.means
    assert min(fisher.min(), curvature.min(), estimate.kurtosis.abs().min()) > 0
    if kind == 'SN':  # as they are now
        of_mean, of_var = (
            t * probabilities(w)[2]
            for t, w in ((of_mean, norm.mean_weight), (of_var, norm.var_weight))
        )
    want = of_var**2 * (estimate.kurtosis + 2) / (8 * SAMPLES) * fisher
    want = want + of_mean**2 / (2 * SAMPLES) * curvature
    torch.testing.assert_close(hook.strengths()['norm'], want.double(), rtol=1e-6, atol=0)


def test_channels_without_batch_statistics_move_as_without_the_hook():
    moved = []
    for hook in (None, GammaDecayHook(SAMPLES, scale=3.0)):
        model = Net(IBN(4))
        Training(model, hook).step(*batch(5, 0))
        moved.append(model.norm.weight.detach())
    assert torch.equal(moved[0][:2], moved[1][:2])
    assert (moved[0][2:] != moved[1][2:]).all()


def test_layers_without_batch_statistics_are_left_out(caplog):
    hook, model = GammaDecayHook(SAMPLES), nn.Sequential(SN(4, using_bn=False), SN(4))
    with caplog.at_level(logging.INFO, 'gamma decay'):
        hook.before_train(runner_of(model))
    assert list(hook.strengths()) == ['1']
    assert '1 of 2 norms have no batch statistics and are left out' in caplog.text


MEASURED = {'norm': {'std_samples': 20.0, 'mean_samples': 50.0, 'images': 4}, 'other': {}}


def csv_of(folder, measured):
    """What tools/plot_batch_noise.py writes of a run."""
    (folder / 'now/vis_data').mkdir(parents=True)
    lines = [
        {f'batch_noise/{n}/{q}': v for n, row in layers.items() for q, v in row.items()}
        | {'step': step}
        for step, layers in measured.items()
    ]
    path = folder / 'now/vis_data/scalars.json'
    path.write_text('\n'.join(map(json.dumps, lines)))
    assert main_plot_batch_noise([str(folder)]) == 0
    return str(folder / 'batch_noise.csv')


@pytest.mark.parametrize('of_run', [False, True])
def test_the_samples_of_each_term_as_they_were_measured(tmp_path, of_run):
    samples = MEASURED
    if of_run:
        first = {'norm': {'std_samples': 3.0, 'mean_samples': 3.0}}
        samples = csv_of(tmp_path, {0: first, 500: MEASURED})
    hook = GammaDecayHook(samples)
    Training(Net(independent()), hook).step(*batch(5, 0))
    fisher, curvature = hook._decays[0].estimate.means
    want = 2 / (8 * 20) * fisher + curvature / (2 * 50)
    torch.testing.assert_close(hook.strengths()['norm'], want)


@pytest.mark.parametrize(
    ('measured', 'told'),
    [
        ({}, 'std_samples=None and mean_samples=None'),
        ({'norm': {'mean_samples': 50.0}}, 'std_samples=None and mean_samples=50.0'),
        ({'norm': {'std_samples': 0.5, 'mean_samples': 50.0}}, 'std_samples=0.5'),
        (MEASURED | {'norm/call_2': MEASURED['norm']}, 'std_samples=None'),
    ],
)
def test_samples_that_a_layer_has_not_got(measured, told):
    model = Net(independent())
    with pytest.raises(UnsuitableModelError, match=f'samples: norm has .*{told}.*option layers'):
        GammaDecayHook(measured).before_train(runner_of(model))
    assert not model.norm.sample_grad_hooks


@pytest.mark.parametrize(
    'text', [None, '', 'layer,std_samples\nnorm,3\n', 'iteration,layer\n1,x\n']
)
def test_a_file_of_something_else(tmp_path, text):
    path = tmp_path / 'batch_noise.csv'
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=f'samples: {path} is no batch_noise.csv.*BatchNoiseHook'):
        GammaDecayHook(str(path)).before_train(runner_of(Net(independent())))


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
        ({'samples': 0.5}, 'samples must be a number from 1, .*got 0.5'),
        ({'samples': [8, 8]}, r'samples must be a number from 1, or the path.* got \[8, 8\]'),
        ({'samples': float('nan')}, 'samples must be a number from 1, .*got nan'),
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
        (
            lambda: nn.Sequential(SN(4, using_bn=False), IBN(4, ratio=1)),
            {},
            'none of the 2 norms takes statistics of a batch.*set using_bn=True',
        ),
        (lambda: nn.Sequential(SN(4), BIN(4)), {}, '1 is a BIN; the theory is of a batch norm by'),
        (lambda: nn.Sequential(MABN(4)), {}, '0 is a MABN; .* not of an average over iterations'),
        (lambda: nn.Sequential(EBN(4)), {}, '0 is a EBN; .* not of all together'),
        (lambda: nn.Sequential(CBN(4)), {}, '0 is a CBN; .* not of an average over iterations'),
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
