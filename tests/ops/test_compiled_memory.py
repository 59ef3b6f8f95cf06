"""Compiled code allocates nothing of x's size but its results: else it moves more than it must."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import normplug
from normplug.norms.whitening import WhiteningNorm
from tests.cases import CASES, Case, built, random_input

SHAPE = (2, 5, 33, 35)


@pytest.fixture(autouse=True)
def compiled():
    normplug.set_backend('compiled')


def large_allocations(call, size):
    """What ``call()`` returns, and how often it allocates ``size`` bytes or more."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as run:
        result = call()
    events = run.profiler.kineto_results.events()
    allocated = [event.nbytes() for event in events if event.name() == '[memory]']
    assert any(nbytes > 0 for nbytes in allocated), 'nothing was recorded'
    return result, sum(nbytes >= size for nbytes in allocated)


def assert_only_results(case, dtype=torch.float32, layout=torch.contiguous_format):
    layer = built(case, SHAPE[1])
    x, dy = (random_input(SHAPE, dtype, seed).to(memory_format=layout) for seed in (1, 2))
    x.requires_grad_()
    for training in (True, False):
        layer.train(training)
        torch.autograd.grad(layer(x), x, dy)  # compiles
        y, in_forward = large_allocations(lambda: layer(x), x.nbytes)
        _, in_backward = large_allocations(lambda y=y: torch.autograd.grad(y, x, dy), x.nbytes)
        assert (in_forward, in_backward) == (1, 1), f'training={training}'


# Whitening runs in plain torch, by pieces: tests/ops/test_whitening_steps.py.
COMPILED = [case for case in CASES if not isinstance(built(case, 4), WhiteningNorm)]


@pytest.mark.slow
@pytest.mark.parametrize('case', COMPILED, ids=lambda case: case.name)
def test_nothing_but_y_and_dx(case):
    assert_only_results(case)


@pytest.mark.slow
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize('name', ['sn', 'ibn', 'portable_sync_bn'])
def test_nothing_but_y_and_dx_where_channels_lie_innermost(name, dtype):
    case: Case = next(case for case in CASES if case.name == name)
    assert_only_results(case, dtype, torch.channels_last)


@pytest.mark.slow
def test_nothing_but_y_and_dx_in_half_precision():
    assert_only_results(next(case for case in CASES if case.name == 'sn'), torch.bfloat16)
