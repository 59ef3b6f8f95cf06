"""The autograd Function: written before anything that stands on it."""

from collections import Counter
from functools import partial

import pytest
import torch
from torch.autograd import gradcheck

from normplug.norms.ibn import ibn_rule
from normplug.norms.sn import SN
from normplug.norms.switchable import switch_rule
from normplug.ops import Plan, fused, normalize, normalize_naive
from normplug.ops.plan import pull_back
from normplug.running import Tracked, Tracking
from tests.cases import all_shapes, random_input
from tests.outside_steps import OutsideSteps

SN_RULE = partial(switch_rule, to_ratios=SN.to_ratios, using_in=True, eps=1e-3)
IBN_RULE = partial(ibn_rule, eps=1e-3)


def parameters(*sizes, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(size, generator=generator, dtype=dtype).requires_grad_() for size in sizes]


def sn_parameters(channels, logits=3, dtype=torch.float64):
    return parameters(channels, channels, logits, logits, dtype=dtype)


def running(mean, var):
    return Tracked(mean, var, torch.tensor(0))


def spatial(shape):
    return (*shape, 1) if len(shape) == 2 else shape


@pytest.mark.parametrize('correction', [0, 1])
@all_shapes
def test_gradcheck_with_batch_moments(shape, correction):
    x = random_input(spatial(shape), torch.float64).requires_grad_()

    def function(x, *params):
        return normalize(x, Plan(SN_RULE, 0, correction), params).y

    assert gradcheck(function, (x, *sn_parameters(shape[1])))


def test_gradcheck_with_given_moments():
    x = random_input((2, 4, 3, 2), torch.float64).requires_grad_()
    given = running(torch.randn(4, dtype=torch.float64), torch.rand(4, dtype=torch.float64) + 0.1)
    params = sn_parameters(4)
    assert gradcheck(lambda x, *p: normalize(x, Plan(SN_RULE), p, given).y, (x, *params))


def test_gradcheck_with_batch_moments_of_some_channels():
    x = random_input((3, 5, 2, 3), torch.float64).requires_grad_()
    params = parameters(5, 5)
    assert gradcheck(lambda x, *p: normalize(x, Plan(IBN_RULE, 2), p).y, (x, *params))


def test_gradcheck_without_batch_moments():
    x = random_input((2, 5, 2, 3), torch.float64).requires_grad_()
    params = sn_parameters(5, logits=2)
    assert gradcheck(lambda x, *p: normalize(x, Plan(SN_RULE), p).y, (x, *params))


def test_backward_twice_over_a_retained_graph():
    x = random_input((2, 4, 5, 3), torch.float64).requires_grad_()
    y = normalize(x, Plan(SN_RULE, 0), sn_parameters(4)).y
    dy = torch.randn_like(y)
    (first,) = torch.autograd.grad(y, x, dy, retain_graph=True)
    (second,) = torch.autograd.grad(y, x, dy)
    assert torch.equal(first, second)
    assert first.abs().max() > 0


@pytest.mark.parametrize('given', [None, running(torch.zeros(4), torch.ones(4))])
def test_compiles_as_one_graph_with_the_same_gradients(given):
    """Dynamo traces the Function and the vjp in its backward, and loses no gradient."""
    plan = Plan(SN_RULE, 0 if given is None else None)

    def function(x, *params):
        return normalize(x, plan, params, given).y

    # aot_eager: Dynamo and AOTAutograd as always, without the half minute of code generation.
    compiled = torch.compile(function, fullgraph=True, backend='aot_eager')
    results = []
    for run in (function, compiled):
        x = random_input((2, 4, 5, 3)).requires_grad_()
        params = sn_parameters(4, dtype=torch.float32)
        y = run(x, *params)
        y.backward(random_input(y.shape, seed=9))
        results.append([y.detach(), x.grad, *(p.grad for p in params)])
    for eager, traced in zip(*results, strict=True):
        torch.testing.assert_close(traced, eager, rtol=1e-5, atol=1e-5)
    assert all(tensor.abs().max() > 1e-3 for tensor in results[1])


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@all_shapes
def test_equals_the_naive_formula(shape, dtype):
    """Our hand-derived backward against autograd through every step of the plain formula."""
    results = []
    for function in (lambda *args: normalize(*args).y, normalize_naive):
        x = random_input(spatial(shape), dtype).requires_grad_()
        params = sn_parameters(shape[1], dtype=dtype)
        y = function(x, Plan(SN_RULE, 0), params)
        y.backward(random_input(y.shape, dtype, seed=5))
        results.append([y.detach(), x.grad, *(p.grad for p in params)])
    tolerance = {torch.float64: 1e-11, torch.float32: 1e-4}[dtype]
    for ours, naive in zip(*results, strict=True):
        scale = naive.abs().max().clamp(min=1)
        assert (ours - naive).abs().max() <= tolerance * scale


def test_keeps_only_the_input_and_small_tensors_for_backward():
    x = random_input((2, 4, 16, 16)).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = normalize(x, Plan(SN_RULE, 0), sn_parameters(4, dtype=torch.float32)).y
    large = [tensor for tensor in kept if tensor.numel() > 2 * 4]
    assert y.grad_fn is not None
    assert len(large) == 1
    assert large[0].data_ptr() == x.data_ptr()


def test_skips_the_input_gradient_that_nobody_needs():
    x = random_input((2, 4, 5, 3))
    params = sn_parameters(4, dtype=torch.float32)
    y = normalize(x, Plan(SN_RULE, 0), params).y
    dy = torch.randn_like(y)
    y.backward(dy)
    with_input = sn_parameters(4, dtype=torch.float32)
    normalize(x.requires_grad_(), Plan(SN_RULE, 0), with_input).y.backward(dy)
    for alone, together in zip(params, with_input, strict=True):
        assert torch.equal(alone.grad, together.grad)


@pytest.mark.parametrize('shape', [(2, 4, 5, 6), (2, 4, 80, 90)])
def test_batched_gradients(shape):
    """vmap of the backward: of a gradient that is batched, where what it is written to is not."""
    x = random_input(shape).requires_grad_()
    y = normalize(x, Plan(SN_RULE, 0), sn_parameters(4, dtype=torch.float32)).y
    dy = torch.stack([random_input(shape, seed=seed) for seed in (2, 3)])
    (batched,) = torch.autograd.grad(y, x, dy, retain_graph=True, is_grads_batched=True)
    for own, each in zip(batched, dy, strict=True):
        torch.testing.assert_close(own, torch.autograd.grad(y, x, each, retain_graph=True)[0])


def test_selective_checkpointing_that_keeps_every_operator():
    """It refuses that a result it keeps is written to."""
    from torch.utils.checkpoint import (
        CheckpointPolicy,
        checkpoint,
        create_selective_checkpoint_contexts,
    )

    params = sn_parameters(4, dtype=torch.float32)
    dy = random_input((2, 4, 5, 6), seed=2)
    grads = []
    for keep in (False, True):
        x = random_input((2, 4, 5, 6)).requires_grad_()
        call = partial(normalize, plan=Plan(SN_RULE, 0), params=params)
        if keep:
            contexts = partial(
                create_selective_checkpoint_contexts, lambda *_, **__: CheckpointPolicy.MUST_SAVE
            )
            call = partial(checkpoint, call, use_reentrant=False, context_fn=contexts)
        grads += torch.autograd.grad(call(x).y, x, dy)
    assert torch.equal(*grads)


def test_a_gradient_of_the_rule_that_nobody_needs_is_not_computed():
    moments = [torch.randn(2, 4), torch.rand(2, 4) + 0.1, torch.randn(4), torch.rand(4) + 0.1]
    tensors = [t.double() for t in (*moments, *(p.detach() for p in sn_parameters(4)))]
    cotangents = torch.randn(2, 4).double(), torch.randn(2, 4).double()
    needed = [True] * 4 + [False, True, True, False]
    scale, some = pull_back(Plan(SN_RULE), True, tensors, needed, cotangents)
    want, every = pull_back(Plan(SN_RULE), True, tensors, [True] * 8, cotangents)
    assert torch.equal(scale, want)
    for need, own, grad in zip(needed, some, every, strict=True):
        assert torch.equal(own, grad) if need else own is None
        assert grad.abs().max() > 0


class TwoRanks:
    """Another rank that has the same samples; counts the collectives."""

    count = 0

    def gather(self, own):
        self.count += 1
        return own.expand(2, *own.shape)

    def sum(self, own):
        self.count += 1
        return own


def test_nothing_but_collectives_runs_between_the_steps(monkeypatch):
    x = random_input((2, 4, 3, 2)).requires_grad_()
    ranks, params = TwoRanks(), sn_parameters(4, dtype=torch.float32)
    tracked = Tracked(torch.zeros(4), torch.ones(4), torch.tensor(0))
    plan = Plan(SN_RULE, 0, tracking=Tracking(0.1, True))
    with OutsideSteps().counting(monkeypatch, fused) as outside:
        y = normalize(x, plan, params, tracked, ranks).y
        torch.autograd.grad(y, [x, *params], torch.ones_like(y))
    assert outside.names == Counter(ones_like=1), outside.names
    assert ranks.count == 2
    assert len(outside.steps) == 5
    assert tracked.num_batches == 1
