"""KN in training: nothing leaks from forward to forward, and what cannot work is refused."""

import copy

import pytest
import torch

from normplug.kalman import link_kalman
from normplug.norms import kn
from tests.cases import TOLERANCE, assert_same
from tests.kalman.iterations import (
    EXACT,
    all_options,
    assert_no_state_is_left,
    iteration,
    twin_of,
    upstream,
)
from tests.kalman.networks import CHAIN, RESIDUAL, build, made


def without_buffers(found):
    return {k: t for k, t in found.items() if k in ('y', 'dx') or k.startswith('grad.')}


@all_options
def test_the_second_iteration_is_as_a_fresh_models(options):
    model, x = made(RESIDUAL, **options)
    iteration(model, x)
    x2 = x.flip(0)[:2] * 2 - 1
    fresh = twin_of(model)
    assert_same(iteration(model, x2), iteration(fresh, x2), EXACT)
    assert_no_state_is_left(model)


def test_an_evaluation_between_changes_nothing():
    model, x = made(RESIDUAL)
    twin = twin_of(model)
    iteration(model, x), iteration(twin, x)
    with torch.no_grad():
        model.eval()(x * 9)
    assert_no_state_is_left(model)
    assert_same(iteration(model.train(), x), iteration(twin, x), EXACT)


def test_an_evaluation_between_forward_and_backward():
    model, x = made(RESIDUAL)
    want = iteration(twin_of(model), x)
    y = model(x)
    model.eval()(x * 9)
    model.train()
    y.backward(upstream(y))
    assert_same(
        {f'grad.{k}': p.grad for k, p in model.named_parameters()},
        {k: t for k, t in want.items() if k.startswith('grad.')},
        EXACT,
    )


@all_options
def test_an_empty_batch(options):
    model, x = made(RESIDUAL, **options)
    twin = twin_of(model)
    before = copy.deepcopy(model.state_dict())
    found = iteration(model, x[:0])
    assert found['y'].shape[0] == 0
    for name, _ in model.named_parameters():  # which DDP waits for
        assert f'grad.{name}' in found, name
        assert not found[f'grad.{name}'].any()
    assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items())
    assert_no_state_is_left(model)
    assert_same(iteration(model, x), iteration(twin, x), EXACT)


@pytest.mark.parametrize('size', [8, 4, 1])
def test_one_image(size):
    """Down to one of a single pixel: variances of 0."""
    model, x = made(RESIDUAL)
    found = iteration(model, x[:1, :, :size, :size])
    assert all(t.isfinite().all() for t in found.values())


def test_an_exception_in_the_middle():
    model, x = made(CHAIN)
    twin = twin_of(model)

    def fail(*_):
        raise InterruptedError('in the middle')

    handle = model[6].register_forward_pre_hook(fail)
    with pytest.raises(InterruptedError):
        model(x * 7)
    handle.remove()
    assert_no_state_is_left(model)
    # The two layers before it have recorded that batch, as batch norms would have.
    got, want = iteration(model, x), iteration(twin, x)
    assert_same(without_buffers(got), without_buffers(want), EXACT)


def test_gradients_accumulate_in_any_order():
    model, x = made(RESIDUAL, gain='learned')
    x2 = x.flip(0) * 2 - 1
    parts = [iteration(twin_of(model), t) for t in (x, x2)]
    want = {k: parts[0][k] + parts[1][k] for k in parts[0] if k.startswith('grad.')}
    for order in ((0, 1), (1, 0)):
        model.zero_grad()
        outputs = [model(t) for t in (x, x2)]
        for i in order:
            outputs[i].backward(upstream(outputs[i]))
        got = {f'grad.{k}': p.grad for k, p in model.named_parameters()}
        assert_same(got, want, EXACT)


@all_options
def test_every_parameter_gets_a_gradient(options):
    """Of 0 where a first layer's learned gain or transition takes no part: DDP waits for it."""
    model, x = made(RESIDUAL, limit=float('inf'), **options)
    found = iteration(model, x)
    for name, _ in model.named_parameters():
        grad = found[f'grad.{name}']
        unused = name.startswith('1.') and name.split('.')[1] not in ('weight', 'bias')
        assert bool(grad.any()) != unused, name


def test_linking_leaves_no_traces():
    model, x = made(RESIDUAL)
    iteration(model, x)
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    link_kalman(model, lambda: model(torch.randn(3, 3, 8, 8).double()))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items())
    assert len(model._forward_hooks) == 1
    assert_same(iteration(model, x), iteration(twin_of(model), x), 1.0)  # it still runs


def test_a_failed_linking_is_none():
    model, x = build(CHAIN).double(), torch.randn(2, 3, 8, 8).double()
    with pytest.raises(RuntimeError):
        link_kalman(model, lambda: model(x[:, :2]))
    with pytest.raises(ValueError, match='never linked'):
        model(x)


def test_autocast():
    """Outputs to bfloat16's precision; states and parameters' gradients are of more."""
    model, x = made(RESIDUAL)
    model, x = model.float(), x.float()
    twin = copy.deepcopy(model)
    link_kalman(twin, lambda: twin(x))
    want = iteration(twin, x)
    with torch.autocast('cpu', torch.bfloat16):
        y = model(x)
    y.backward(upstream(y).to(y.dtype))
    assert_same({'y': y.detach()}, {'y': want['y']}, 4 * TOLERANCE[torch.bfloat16])
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert {grad.dtype for grad in grads.values()} == {torch.float32}
    # All of them as one vector: a bias's own gradient is a sum of terms that cancel, so that its
    # relative error depends on the convolutions that a CPU has for bfloat16.
    got = torch.cat([grad.flatten() for grad in grads.values()])
    exact = torch.cat([want[f'grad.{name}'].flatten() for name in grads])
    assert (got - exact).norm() <= 8 * TOLERANCE[torch.bfloat16] * exact.norm()


def test_autocast_leaves_predictions_alone(monkeypatch):
    """Those of β and γ depend on the weights only, not on the activations' precision."""
    seen, inner = [], kn.kalman_filter

    def watched(batch, *prior, **options):
        seen.append(prior)
        return inner(batch, *prior, **options)

    monkeypatch.setattr(kn, 'kalman_filter', watched)
    model, x = made(CHAIN, state='affine')
    model, x = model.float(), x.float()
    model(x)
    with torch.autocast('cpu', torch.bfloat16):
        model(x)
    assert len(seen) == 4
    torch.testing.assert_close(seen[2:], seen[:2], rtol=0, atol=0)
