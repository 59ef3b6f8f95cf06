"""Clipping the gradient of the ratios, and of nothing else."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn

from normplug import SN
from normplug.errors import UnsuitableModelError
from normplug.hooks import RatioGradClipHook
from normplug.norms import SSN


def net():
    return nn.Sequential(nn.Conv2d(3, 4, 1), SN(4), SSN(4), nn.BatchNorm2d(4)).double()


def logits(model):
    return {n: p for n, p in model.named_parameters() if n.endswith(('mean_weight', 'var_weight'))}


def updates(max_norm, scale, clipped=True, accumulate=1):
    """By how much each parameter moves, and its gradient, in one step of SGD with lr 1."""
    torch.manual_seed(0)
    model = net()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1), accumulate)
    hook = RatioGradClipHook(max_norm)
    if clipped:
        hook.before_train(SimpleNamespace(model=model, optim_wrapper=wrapper))
    before = copy.deepcopy(dict(model.named_parameters()))
    wrapper.initialize_count_status(model, 0, accumulate)
    generator = torch.Generator().manual_seed(1)
    for _ in range(accumulate):
        x = torch.randn(4, 3, 5, 5, generator=generator, dtype=torch.float64)
        target = torch.randn(4, 4, 5, 5, generator=generator, dtype=torch.float64)
        wrapper.update_params((model(x) * target).sum() * scale)
    if clipped:
        hook.after_train(SimpleNamespace())
        assert not wrapper.optimizer._optimizer_step_pre_hooks
    return {name: before[name] - p for name, p in model.named_parameters()}


def norm_of(moved, names):
    return torch.cat([moved[name].flatten() for name in names]).norm().item()


@pytest.mark.parametrize('accumulate', [1, 3])
def test_only_ratios_are_clipped_and_together(accumulate):
    free = updates(0.5, 100, clipped=False, accumulate=accumulate)
    bound = updates(0.5, 100, accumulate=accumulate)
    ratios = set(logits(net()))
    assert len(ratios) == 4
    assert norm_of(free, ratios) > 1
    assert norm_of(bound, ratios) == pytest.approx(0.5, rel=1e-4)
    factor = 0.5 / norm_of(free, ratios)
    for name in free:
        want = free[name] * factor if name in ratios else free[name]
        torch.testing.assert_close(bound[name], want, rtol=1e-4, atol=1e-12)


def test_small_gradients_stay():
    free, bound = updates(0.5, 1e-3, clipped=False), updates(0.5, 1e-3)
    assert norm_of(free, logits(net())) < 0.5
    for name in free:
        assert torch.equal(bound[name], free[name])


@pytest.mark.parametrize('fused', [False, True])
def test_scaled_gradients_are_measured_unscaled(fused):
    """A fused optimizer unscales by itself, after the hook has seen the gradients."""
    model = net().float()
    optimizer = torch.optim.SGD(model.parameters(), lr=1, fused=fused)
    wrapper = SimpleNamespace(optimizer=optimizer)
    RatioGradClipHook(0.5).before_train(SimpleNamespace(model=model, optim_wrapper=wrapper))
    before = copy.deepcopy(dict(model.named_parameters()))
    scaler = torch.amp.GradScaler('cpu', init_scale=64.0)
    scaler.scale(sum(p.sum() for p in model.parameters())).backward()  # gradients of 1
    scaler.step(optimizer)
    moved = {name: before[name] - p for name, p in model.named_parameters()}
    assert norm_of(moved, logits(model)) == pytest.approx(0.5, rel=1e-4)
    torch.testing.assert_close(moved['0.weight'], torch.ones(4, 3, 1, 1))


@pytest.mark.parametrize('max_norm', [0, -1.0, float('nan')])
def test_wrong_norm(max_norm):
    with pytest.raises(ValueError, match='max_norm must be positive'):
        RatioGradClipHook(max_norm)


@pytest.mark.parametrize('layer', [nn.BatchNorm2d(4), SN(4, frozen=True)])
def test_nothing_to_clip(layer):
    with pytest.raises(ValueError, match='no ratios to train; remove the hook'):
        RatioGradClipHook().before_train(SimpleNamespace(model=layer))


def sgd(*modules):
    return OptimWrapper(torch.optim.SGD([p for m in modules for p in m.parameters()], lr=1))


def test_of_several_optimizers_the_one_of_the_ratios():
    """As of a generator and a discriminator; without a step of the other."""
    model = net()
    conv, sn, ssn, bn = model
    wrapper = OptimWrapperDict(first=sgd(conv, bn), second=sgd(sn, ssn))
    hook = RatioGradClipHook(0.5)
    hook.before_train(SimpleNamespace(model=model, optim_wrapper=wrapper))
    before = copy.deepcopy(dict(model.named_parameters()))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    for one in wrapper.values():
        one.step()
    moved = {name: before[name] - p for name, p in model.named_parameters()}
    assert norm_of(moved, logits(model)) == pytest.approx(0.5, rel=1e-4)
    torch.testing.assert_close(moved['0.weight'], torch.ones_like(conv.weight))
    torch.testing.assert_close(moved['1.weight'], torch.ones_like(sn.weight))
    hook.after_train(SimpleNamespace())
    assert not any(one.optimizer._optimizer_step_pre_hooks for one in wrapper.values())


@pytest.mark.parametrize(
    ('groups', 'message'),
    [
        (([0, 1], [2, 3]), 'all 4 logits .* but optim_wrapper.first 2, optim_wrapper.second 2: '),
        (([0], [3]), 'but no optimizer of optim_wrapper trains any: give all norm layers to one'),
    ],
)
def test_ratios_of_several_optimizers_or_of_none(groups, message):
    model = net()
    first, second = (sgd(*(model[i] for i in group)) for group in groups)
    wrapper = OptimWrapperDict(first=first, second=second)
    with pytest.raises(UnsuitableModelError, match=message):
        RatioGradClipHook().before_train(SimpleNamespace(model=model, optim_wrapper=wrapper))
    assert not first.optimizer._optimizer_step_pre_hooks
