"""Whitening on a GPU: compiled there; in plain torch, how much it launches, and nothing waits.

Counted on tensors without values (torch has no GPU here). They refuse what needs a value on the
host, such as ``item`` or ``nonzero``, and operators of tensors of two devices.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from normplug.norms import GW, SW, IterNorm
from normplug.ops import fused
from tests.outside_steps import OutsideSteps

# Launches of forward and backward, and products of matrices among them.
LIMITS = {
    'SW': (lambda: SW(64), (97, 17), (203, 47)),
    'SW of all': (lambda: SW(64, sw_type=5), (118, 17), (271, 47)),
    'IterNorm': (lambda: IterNorm(64), (89, 17), (174, 47)),
    'GW': (lambda: GW(64), (59, 16), (162, 46)),
}


def steps_of(layer, monkeypatch):
    """The arguments of the steps of a training step."""
    seen = {}

    def recording(plan, step, *args):
        seen[step] = args
        return step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(fused, '_run', recording)
        layer(torch.randn(2, 64, 6, 5, requires_grad=True)).sum().backward()
    return seen


def counted(step, args, device):
    def valueless(t):
        if not isinstance(t, torch.Tensor):
            return t
        return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=device)

    with torch.no_grad(), FakeTensorMode(), OutsideSteps() as outside:
        args = pytree.tree_map(valueless, args)
        outside.names.clear()
        step(*args)
    del outside.names['device']  # of a tensor without values, asked for
    return outside.names


@pytest.mark.parametrize('name', LIMITS)
def test_launches(monkeypatch, name):
    build, *limits = LIMITS[name]
    steps = steps_of(build(), monkeypatch)
    # The derivative of a rule is autograd's, which starts a thread for a GPU: not without one.
    for (step, args), device, limit in zip(steps.items(), ('cuda', 'cpu'), limits, strict=True):
        names = counted(step, args, device)
        assert 'lift_fresh' not in names  # made on the host
        assert names.total() <= limit[0], names
        assert names['bmm'] <= limit[1], names


def test_steps_are_compiled_for_a_gpu_alone(monkeypatch):
    steps = []

    def recording(step, *args):
        steps.append(step.__name__)
        return step(*args)

    monkeypatch.setattr(fused, 'run', recording)
    for on_gpu, expected in (False, []), (True, ['forward_step', 'backward_step']):
        monkeypatch.setattr(fused, 'on_gpu', lambda x, on_gpu=on_gpu: on_gpu)
        SW(64)(torch.randn(2, 64, 6, 5, requires_grad=True)).sum().backward()
        assert steps == expected
