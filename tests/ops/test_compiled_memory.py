"""The compiled code of each kind of layer: its results, and no other writes of x's size.

Others would move more than they must.
"""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import normplug
from tests.cases import CASES, TOLERANCE, assert_same, built, random_input, run

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


def assert_only_results(name, dtype=torch.float32, layout=torch.contiguous_format):
    case = next(case for case in CASES if case.name == name)
    layer, twin = built(case, SHAPE[1]), built(case, SHAPE[1])
    x, dy = (random_input(SHAPE, dtype, seed).to(memory_format=layout) for seed in (1, 2))
    normplug.set_backend('eager')
    want = run(twin, x, dy)
    normplug.set_backend('compiled')
    assert_same(run(layer, x, dy), want, TOLERANCE[dtype])
    x.requires_grad_()
    for training in (True, False):
        layer.train(training)
        torch.autograd.grad(layer(x), x, dy)  # compiles
        y, in_forward = large_allocations(lambda: layer(x), x.nbytes)
        _, in_backward = large_allocations(lambda y=y: torch.autograd.grad(y, x, dy), x.nbytes)
        assert (in_forward, in_backward) == (1, 1), f'training={training}'


# A rule for each, and each way of the passes: with the batch, without it, of a part of the channels
# alone, by groups, linked, with what is drawn, over ranks. (A minute of compilation for two.)
# Whitening runs in plain torch, by pieces: tests/ops/test_whitening_steps.py.
@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        'sn',
        'sn_no_bn',
        'sn_released',
        'ssn_radius',
        'ibn',
        'ibn_all_in',
        'ghost_bn',
        'kn',
        'pn_drawn',
        'brn',
        'bcn',
        'frn_learned',
        'sync_ssn',
        'sync_ibn',
        'portable_sync_bn',
    ],
)
def test_nothing_but_y_and_dx(name):
    assert_only_results(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'dtype'), [('sn', torch.bfloat16), ('ibn', torch.float32)], ids=str
)
def test_nothing_but_y_and_dx_where_channels_lie_innermost(name, dtype):
    assert_only_results(name, dtype, torch.channels_last)


@pytest.mark.slow
def test_nothing_but_y_and_dx_in_half_precision():
    assert_only_results('sn', torch.bfloat16)
