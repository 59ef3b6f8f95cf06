"""KN by compiled code: the backend's own, and whole models under ``torch.compile``."""

import copy

import pytest
import torch

import normplug
from tests.cases import assert_same
from tests.kalman.iterations import (
    EXACT,
    OPTIONS,
    assert_no_state_is_left,
    iteration,
    twin_of,
)
from tests.kalman.networks import CHAIN, RESIDUAL, made


@pytest.mark.slow
@pytest.mark.parametrize('name', ['affine', 'linear, learned gain', 'groups'])
def test_compiled_backend(name, compiled):
    options = OPTIONS[name]
    model, x = made(RESIDUAL, **options)
    got = iteration(model, x)
    normplug.set_backend('eager')
    twin, x = made(RESIDUAL, **options)
    assert_same(got, iteration(twin, x), EXACT)


@pytest.mark.slow
def test_outer_compile():
    """Two steps of training, an evaluation between."""
    model, x = made(RESIDUAL, gain='learned')
    twin = twin_of(model)
    traced = torch.compile(model)
    for step in (1, 2):
        got = {k.replace('_orig_mod.', ''): t for k, t in iteration(traced, x * step).items()}
        assert_same(got, iteration(twin, x * step), EXACT)
        torch.testing.assert_close(traced.eval()(x), twin.eval()(x), rtol=1e-10, atol=1e-10)
        traced.train(), twin.train()
    assert_no_state_is_left(model)


@pytest.mark.slow
def test_outer_compile_for_inference():
    """A model that was loaded, not linked: one graph."""
    model, x = made(RESIDUAL)
    model(x)
    with torch.no_grad():
        want = model.eval()(x)
        torch._dynamo.reset()
        traced = torch.compile(copy.deepcopy(model), fullgraph=True, backend='aot_eager')
        torch.testing.assert_close(traced(x), want, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_outer_compile_of_copies_that_are_not_linked():
    """As of an averaged model, before and after training."""
    model, x = made(CHAIN)
    torch._dynamo.reset()
    unlinked = copy.deepcopy(model).eval()
    twin = twin_of(model)
    traced = torch.compile(model, backend='aot_eager')
    for _ in range(2):
        with torch.no_grad():
            got = torch.compile(copy.deepcopy(unlinked), backend='aot_eager')(x)
            torch.testing.assert_close(got, unlinked(x), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(traced(x), twin(x), rtol=1e-10, atol=1e-10)
