"""Gamma decay: ζ by loops over images, and its place in the step."""

import copy
import io

import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn
from torch.utils.checkpoint import checkpoint

from normplug.hooks import GammaDecayHook
from normplug.norms import IBN, KN, SN, GhostBN
from tests.cases import random_input
from tests.hooks.decay_training import LR, SAMPLES, Net, Scaled, Training, batch, independent


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


def test_a_constant_channel_has_the_kurtosis_of_a_gaussian():
    hook, model = GammaDecayHook(SAMPLES, kurtosis_batches=1), Net(independent())
    with torch.no_grad():
        model.conv.weight[1] = 0
    want = squares_by_loop(model, *batch(3, 0))
    Training(model, hook).step(*batch(3, 0))
    estimate, found = hook._decays[0].estimate, hook.strengths()['norm']
    assert (estimate.kurtosis == 0).tolist() == [False, True, False, False]
    torch.testing.assert_close(found, zeta(*want, estimate.kurtosis))


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


@pytest.mark.parametrize('curvature', ['fisher', 'sigmoid'])
def test_copies_and_pickles_of_the_model_are_not_watched(curvature):
    found = []
    for copies in (False, True):
        hook = GammaDecayHook(SAMPLES, curvature=curvature, kurtosis_batches=2)
        training = Training(Net(independent()), hook)
        hook.before_train_iter(training, 0)
        if copies:
            file = io.BytesIO()
            torch.save(training.model, file)
            file.seek(0)
            for copied in (copy.deepcopy(training.model), torch.load(file, weights_only=False)):
                copied(*batch(4, 9)).backward()
        x, label = batch(3, 0)
        training.optim_wrapper.update_params(training.model(x, label))
        hook.after_train_iter(training)
        estimate = hook._decays[0].estimate
        found.append((*estimate.means, *estimate.inputs.total))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


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


@pytest.mark.parametrize('both', [False, True])
def test_layers_without_a_gradient_are_not_in_the_logged_ratio(both):
    """Their decay is: γ is that of the steps before."""
    hook, model = GammaDecayHook(SAMPLES), Net(independent())
    model.more = independent().double()
    model.norm.register_forward_hook(lambda layer, args, y: y + model.more(args[0]))
    training = Training(model, hook)
    training.step(*batch(3, 0))
    hook._log_interval = 1
    weights = [model.more.weight, model.norm.weight][: 1 + both]
    for weight in weights:
        weight.register_hook(torch.zeros_like)
    rates = {name: rate.mean().item() for name, rate in hook.strengths().items()}
    assert min(rates.values()) > 0
    weight = model.norm.weight.detach().clone()
    (grad,) = torch.autograd.grad(model(*batch(3, 1)), model.norm.weight)
    training.step(*batch(3, 1))
    strength = hook.strengths()
    mean = torch.cat(list(strength.values())).mean().item()
    want = {'train/gamma_decay/strength': pytest.approx(mean)}
    if not both:
        ratio = ((2 * strength['norm'] * weight).norm() / grad.norm()).item()
        want['train/gamma_decay/ratio'] = pytest.approx(ratio)
    assert training.scalars == want


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
