"""Gamma decay: ζ by loops over images, and its place in the step."""

import copy
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn
from torch.utils.checkpoint import checkpoint

from normplug.errors import UnsuitableModelError
from normplug.hooks import GammaDecayHook
from normplug.norms import IBN, KN, SN, SW, GhostBN
from tests.cases import random_input
from tests.hooks import tiny_training as tiny

LR, SAMPLES = 0.5, 8


class Net(nn.Module):
    """A loss that is a mean over images."""

    def __init__(self, norm, calls=1):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 4, 1), norm
        self.head = nn.Linear(4, 2)
        self.calls = calls
        with torch.no_grad():
            self.norm.weight.normal_()
            self.norm.bias.normal_()
        self.double()

    def forward(self, x, label):
        features = self.conv(x)
        for _ in range(self.calls):
            features = self.norm(features).tanh()
        return nn.functional.cross_entropy(self.head(features.mean((2, 3))), label)


def independent():
    """A norm in which an image has nothing to do with others: as with population statistics."""
    return SN(4, using_bn=False)


class Scaled(OptimWrapper):
    """As AmpOptimWrapper, which needs a GPU to be built."""

    def __init__(self, optimizer, **options):
        super().__init__(optimizer, **options)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=64.0, growth_interval=1000)

    def backward(self, loss, **kwargs):
        self.loss_scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs):
        if self.clip_grad_kwargs:
            self.loss_scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update()


class Training:
    """What a runner does of a training, with the hook."""

    def __init__(self, model, hook=None, wrapper=OptimWrapper, fused=False, wd=0.0, **options):
        self.model, self.hook = model, hook
        sgd = torch.optim.SGD(model.parameters(), lr=LR, weight_decay=wd, fused=fused)
        self.optim_wrapper = wrapper(sgd, **options)
        self.hooks, self.cfg, self.iter = [SimpleNamespace(interval=0)], {}, 0
        self.logger, self.scalars = logging.getLogger('gamma decay'), {}
        self.message_hub = SimpleNamespace(
            update_scalar=lambda name, value: self.scalars.update({name: value})
        )
        if hook is not None:
            hook.before_train(self)

    def step(self, x, label, loss_factor=1.0):
        if self.hook is not None:
            self.hook.before_train_iter(self, self.iter)
        self.optim_wrapper.update_params(self.model(x, label) * loss_factor)
        if self.hook is not None:
            self.hook.after_train_iter(self)
        self.iter += 1
        return self


def batch(images, seed):
    generator = torch.Generator().manual_seed(seed)
    x = random_input((images, 3, 3, 5), torch.float64, seed)
    return x, torch.randint(2, (images,), generator=generator)


def squares_by_loop(model, x, label):
    """Means over images of (dL_j/dγ)² and (dL_j/dβ)², one backward pass an image."""
    found = []
    for i in range(len(x)):
        loss = model(x[i : i + 1], label[i : i + 1])
        grads = torch.autograd.grad(loss, (model.norm.weight, model.norm.bias))
        found.append(torch.stack(grads).square())
    return torch.stack(found).mean(0)


def kurtosis_by_numpy(inputs):
    values = np.moveaxis(torch.cat(inputs).numpy(), 1, 0).reshape(4, -1)
    centred = values - values.mean(1, keepdims=True)
    return torch.from_numpy((centred**4).mean(1) / (centred**2).mean(1) ** 2 - 3)


def zeta(fisher, curvature, kurtosis):
    return (kurtosis + 2) * fisher / (8 * SAMPLES) + curvature / (2 * SAMPLES)


def test_strength_written_out_over_steps():
    """Averages as 1/t until the momentum; ρ of the inputs of each window; unequal batches."""
    hook = GammaDecayHook(SAMPLES, scale=0.7, momentum=0.4, kurtosis_interval=4, kurtosis_batches=2)
    model = Net(independent())
    training = Training(model, hook)
    means, kurtosis, inputs = torch.zeros(2, 4).double(), torch.zeros(4).double(), []
    for t in range(8):
        x, label = batch(2 + t % 3, t)
        rate = max(0.4, 1 / (t + 1))
        means = means + rate * (squares_by_loop(model, x, label) - means)
        strength = zeta(*means, kurtosis)
        before = model.norm.weight.detach().clone()
        (grad,) = torch.autograd.grad(model(x, label), model.norm.weight)
        if t % 4 < 2:
            inputs.append(model.conv(x).detach())
        training.step(x, label)
        want = before - LR * (grad + 2 * 0.7 * strength * before)
        torch.testing.assert_close(model.norm.weight.detach(), want)
        if t % 4 == 1:
            kurtosis, inputs = kurtosis_by_numpy(inputs), []
        torch.testing.assert_close(hook.strengths()['norm'], zeta(*means, kurtosis))
    assert kurtosis.abs().max() > 0.1
    hook.after_train(training)
    assert not model.norm.sample_grad_hooks
    assert not model.norm._forward_pre_hooks
    assert not training.optim_wrapper.optimizer._optimizer_step_pre_hooks


def moved(decayed, wrapper=OptimWrapper, fused=False, steps=1, **options):
    """By how much each parameter moves; ζ."""
    model = Net(independent())
    hook = GammaDecayHook(SAMPLES) if decayed else None
    before = copy.deepcopy(dict(model.named_parameters()))
    training = Training(model, hook, wrapper, fused, **options)
    for t in range(steps):
        training.step(*batch(3, t))
    after = {n: (before[n] - p).detach() for n, p in model.named_parameters()}
    return after, hook and hook.strengths()['norm'], before['norm.weight'].detach()


@pytest.mark.parametrize(
    'options',
    [
        {},
        {'wd': 0.3},
        {'clip_grad': {'max_norm': 1e-3}},
        {'wrapper': Scaled},
        {'wrapper': Scaled, 'fused': True},
        {'wrapper': Scaled, 'fused': True, 'clip_grad': {'max_norm': 1e-3}},
    ],
    ids=str,
)
def test_only_gamma_moves_otherwise_and_as_much_under_amp(options):
    free, decayed = moved(False, **options), moved(True, **options)
    strength = moved(True)[1]
    torch.testing.assert_close(decayed[1], strength)
    for name, want in free[0].items():
        if name == 'norm.weight':
            want = want + LR * 2 * strength * free[2]
        torch.testing.assert_close(decayed[0][name], want, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize('wrapper', [OptimWrapper, Scaled])
def test_accumulated_iterations_are_one_big_batch(wrapper):
    parts = [batch(3, t) for t in range(3)]
    whole = [torch.cat(t) for t in zip(*parts, strict=True)]
    hooks = [GammaDecayHook(SAMPLES) for _ in range(2)]
    models = [Net(independent()) for _ in range(2)]
    Training(models[0], hooks[0]).step(*whole)
    accumulated = Training(models[1], hooks[1], wrapper, accumulative_counts=3)
    for part in parts:
        accumulated.step(*part)
    torch.testing.assert_close(hooks[1].strengths(), hooks[0].strengths(), rtol=1e-6, atol=0)
    torch.testing.assert_close(models[1].norm.weight, models[0].norm.weight, rtol=1e-6, atol=0)


def test_the_last_iterations_that_do_not_fill_a_step():
    """mmengine divides their loss by their number, not by accumulative_counts."""
    hook, model = GammaDecayHook(SAMPLES, momentum=1.0), Net(independent())
    training = Training(model, hook, accumulative_counts=3)
    training.optim_wrapper.initialize_count_status(model, 0, 4)
    for t in range(3):
        training.step(*batch(3, t))
    want = zeta(*squares_by_loop(model, *batch(3, 3)), torch.zeros(4))
    training.step(*batch(3, 3))
    torch.testing.assert_close(hook.strengths()['norm'], want)


@pytest.mark.parametrize('fused', [False, True])
def test_a_step_that_overflows_does_not_count(fused):
    hook, model = GammaDecayHook(SAMPLES), Net(independent())
    training = Training(model, hook, Scaled, fused)
    training.step(*batch(3, 0))
    before, weight = copy.deepcopy(hook.strengths()), model.norm.weight.detach().clone()
    model.head.bias.register_hook(lambda grad: grad * float('inf'))  # not what the norm sees
    training.step(*batch(3, 1))
    assert torch.equal(model.norm.weight, weight)
    assert torch.equal(hook.strengths()['norm'], before['norm'])
    model.head.bias._backward_hooks.clear()
    want = squares_by_loop(model, *batch(3, 2)), hook._decays[0].estimate.means.clone()
    training.step(*batch(3, 2))
    torch.testing.assert_close(
        hook._decays[0].estimate.means, (want[0] + want[1]) / 2, rtol=1e-6, atol=0
    )


def test_nan_does_not_stay():
    hook, model = GammaDecayHook(SAMPLES), Net(independent())
    training = Training(model, hook)
    training.step(*batch(3, 0))
    before = hook.strengths()['norm'].clone()
    model.norm.weight.register_hook(lambda grad: torch.zeros_like(grad))
    training.step(*batch(3, 1), loss_factor=float('nan'))
    assert torch.equal(hook.strengths()['norm'], before)


def test_inputs_that_are_not_finite_do_not_count():
    """By channel; the other channels keep all of them. Blocks are checkpointed."""
    hook = GammaDecayHook(SAMPLES, kurtosis_interval=3, kurtosis_batches=3)
    layer = Net(independent()).norm
    model = nn.Module()
    model.norm = layer
    training, inputs = Training(model, hook), []
    for t in range(3):
        x = random_input((2 + t, 4, 3, 5), torch.float64, t).exp()
        if t == 1:
            x[0, 2, 1, 1] = float('inf')
        inputs.append(x)
        hook.before_train_iter(training, t)
        checkpoint(layer, x.clone().requires_grad_(), use_reentrant=False).sum().backward()
        hook.after_train_iter(training)
        training.iter += 1
    kurtosis = hook._decays[0].estimate.kurtosis
    finite = torch.tensor([0, 1, 3])
    torch.testing.assert_close(kurtosis[finite], kurtosis_by_numpy(inputs)[finite])
    torch.testing.assert_close(kurtosis[2], kurtosis_by_numpy([inputs[0], inputs[2]])[2])


def test_inputs_computed_again_do_not_count():
    hook = GammaDecayHook(SAMPLES, kurtosis_batches=2)
    model = Net(independent())
    training = Training(model, hook)
    hook.before_train_iter(training, 0)
    x = random_input((3, 4, 3, 5), torch.float64).requires_grad_()
    checkpoint(model.norm, x, use_reentrant=False).sum().backward()
    hook.after_train_iter(training)
    count = hook._decays[0].estimate.inputs.total.count
    assert torch.equal(count, torch.full((4,), 45.0).double())


def test_calls_with_the_same_images_are_one_gradient():
    """As of a head on the levels of a pyramid."""
    hook, model = GammaDecayHook(SAMPLES), Net(independent(), calls=2)
    want = squares_by_loop(model, *batch(3, 0))
    Training(model, hook).step(*batch(3, 0))
    torch.testing.assert_close(hook._decays[0].estimate.means, want)


def test_sigmoid_of_the_output_is_the_published_curvature():
    hook = GammaDecayHook(SAMPLES, curvature='sigmoid')
    model = Net(independent())
    seen = []
    model.norm.register_forward_hook(lambda layer, args, y: seen.append(y.detach()))
    training = Training(model, hook)
    with torch.no_grad():
        model(*batch(5, 9))  # outside of an iteration
    for t in range(2):
        training.step(*batch(3, t))
    want = torch.stack([y.sigmoid().mean((0, 2, 3)) for y in seen[1:]]).mean(0)
    torch.testing.assert_close(hook._decays[0].estimate.means[1], want)


@pytest.mark.parametrize(
    'norm', [SN(4), IBN(4), GhostBN(4, virtual_batch_size=2), KN(4)], ids=lambda n: type(n).__name__
)
def test_of_norms_that_mix_images(norm):
    """dL_j/dγ is then of the normalized values as they are: Σ dy x̂."""
    if isinstance(norm, KN):
        from normplug.kalman import link_kalman

        link_kalman(norm, lambda: norm(torch.zeros(1, 4, 2, 2)))
    model = Net(norm)
    x, label = batch(4, 0)
    seen = []
    handle = norm.register_forward_hook(lambda layer, args, y: (y.retain_grad(), seen.append(y))[0])
    hook = GammaDecayHook(SAMPLES)
    weight, bias = (t.detach().clone().view(-1, 1, 1) for t in (norm.weight, norm.bias))
    Training(model, hook).step(x, label)
    handle.remove()
    dy = seen[0].grad * len(x)
    unit = (seen[0].detach() - bias) / weight
    want = torch.stack([t.sum((2, 3)).square().mean(0) for t in (dy * unit, dy)])
    torch.testing.assert_close(hook._decays[0].estimate.means, want)


def test_logged_scalars():
    hook, model = GammaDecayHook(SAMPLES), Net(independent())
    training = Training(model, hook)
    hook._log_interval = 2
    training.step(*batch(3, 0))
    assert training.scalars == {}
    weight = model.norm.weight.detach().clone()
    (grad,) = torch.autograd.grad(model(*batch(3, 1)), model.norm.weight)
    training.step(*batch(3, 1))
    hook_means = hook._decays[0].estimate
    strength = zeta(*hook_means.means, torch.zeros(4))
    ratio = (2 * strength * weight).norm() / grad.norm()
    assert training.scalars == {
        'train/gamma_decay/strength': pytest.approx(strength.mean().item()),
        'train/gamma_decay/ratio': pytest.approx(ratio.item()),
    }


def two_norms():
    return nn.Sequential(nn.Conv2d(3, 4, 1), SN(4), nn.Sequential(SN(4), GhostBN(4)))


def runner_of(model, wrapper=None, **cfg):
    optimizer = torch.optim.SGD(model.parameters(), lr=1)
    return SimpleNamespace(
        model=model,
        optim_wrapper=wrapper or OptimWrapper(optimizer),
        cfg=cfg,
        iter=0,
        hooks=[],
        logger=logging.getLogger('gamma decay'),
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
    training = Training(Net(independent()), hook).step(*batch(3, 0))
    for iteration, state in ((0, saved(hook)), (5, {})):
        other, runner = GammaDecayHook(8), runner_of(Net(independent()))
        runner.iter = iteration
        other.after_load_checkpoint(None, state)
        other.before_train(runner)
        assert (other.strengths()['norm'] == 0).all()
    assert (hook.strengths()['norm'] > 0).all()
    assert caplog.text.count('the checkpoint has no averages') == 1
    assert training.iter == 1


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
