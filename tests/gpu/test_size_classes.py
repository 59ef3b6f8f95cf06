"""Code for a GPU serves the sizes of its class, and is the same whichever of them came first."""

import re

import pytest
import torch

from normplug.norms import SN
from normplug.ops import compiled, steps, traced
from normplug.ops.steps import forward_step
from normplug.ops.traced import size_class

pytest.importorskip('triton')

# (N, C, P) of the classes, two each.
CLASSES = {
    'stem': [(2, 64, 268800), (3, 32, 16392)],
    'box head': [(1024, 256, 49), (700, 128, 25)],
    'mask head': [(256, 256, 196), (128, 512, 252)],
    '50x84': [(2, 512, 4200), (4, 256, 2052)],
    '25x42': [(2, 512, 1050), (4, 256, 526)],
    'box head of few boxes': [(16, 256, 49), (40, 128, 25)],
}


@pytest.fixture(autouse=True)
def as_on_gpu(monkeypatch):
    for module in (steps, traced):
        monkeypatch.setattr(module, 'on_gpu', lambda x: True)


def arguments(size):
    """Of SN's forward at ``size``, x never written."""
    layer, seen = SN(size[1]), []

    def record(step, *args):
        seen.append(args)
        return step(*args)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr('normplug.ops.fused.run', record)
        patch.setattr(steps, 'on_gpu', lambda x: False)
        layer(torch.randn(2, size[1], 4))
    _, plan, params, running, _ = seen[0]
    return torch.empty(size), plan, params, running, torch.empty(size)


def inputs_of(args):
    inputs = []
    compiled._describe(args, inputs, [])
    return inputs


def traced_at(size):
    args = arguments(size)
    with traced.trace(forward_step, args, inputs_of(args)) as t:
        # Which of the process's kernels and their constants it is has a number.
        return re.sub(r'((?:kernel|constant_args)_idx = )\d+', r'\1_', t.graph.code), t.guards()


def test_guards_admit_the_own_class_alone():
    sizes = {name: [inputs_of(arguments(s)) for s in own] for name, own in CLASSES.items()}
    for name, (first, _) in CLASSES.items():
        _, fits = traced_at(first)
        for other, given in sizes.items():
            assert [fits(inputs) for inputs in given] == [other == name] * 2, (name, other)


@pytest.mark.parametrize('name', CLASSES)
def test_the_graph_is_the_same_whichever_size_came_first(name):
    (one, _), (other, _) = (traced_at(size) for size in CLASSES[name])
    assert one == other


def test_size_class():
    bounds = {1: 0, 64: 0, 65: 1, 256: 1, 257: 2, 2048: 2, 2049: 3, 8192: 3, 8193: 4}
    for pixels, expected in bounds.items():
        assert size_class(torch.empty(1, 1, pixels)) == (expected, False)
        assert size_class(torch.empty(1, 1, 1, pixels)) == (expected, False)
    for rows, many in ((16384, False), (16385, True)):
        assert size_class(torch.empty(rows, 1, 1)) == size_class(torch.empty(1, rows, 1))
        assert size_class(torch.empty(rows, 1, 1)) == (0, many)


def test_steps_on_small_tensors():
    """Such as those of KN's states, which have no pixels and no rows."""
    args = torch.randn(5), 2, torch.randn(5)
    assert size_class(args[0]) == (0, False)
    with traced.trace(lambda a, n, b: (a * n + b,), args, inputs_of(args)) as t:
        assert t.guards()(inputs_of((torch.randn(7), 3, torch.randn(7))))
