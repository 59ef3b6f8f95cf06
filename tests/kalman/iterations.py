"""Iterations of training, and what they leave."""

import copy

import pytest
import torch

from normplug.kalman import link_kalman
from normplug.norms.kn import KN
from tests.cases import TOLERANCE, run

OPTIONS = {
    'default': {},
    'learned gain': dict(gain='learned'),
    'linear': dict(transition='linear'),
    'linear, learned gain': dict(transition='linear', gain='learned'),
    'affine': dict(state='affine'),
    'groups': dict(virtual_batch_size=2),
}
all_options = pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)
EXACT = TOLERANCE[torch.float64]


def upstream(y, seed=7):
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def iteration(model, x):
    """What :func:`tests.cases.run` finds, of copies that later iterations leave alone."""
    with torch.no_grad():
        shape = copy.deepcopy(getattr(model, '_orig_mod', model)).eval()(x).shape
    found = run(model, x, upstream(torch.empty(shape)).to(x.dtype))
    return {name: t.detach().clone() for name, t in found.items() if t is not None}


def twin_of(model):
    """A linked copy, in the same mode."""
    twin, mode = copy.deepcopy(model), model.training
    link_kalman(twin.train(), lambda: twin(torch.randn(2, 3, 8, 8).double()))
    return twin.train(mode)


def assert_no_state_is_left(model):
    """A layer on its own would take what the layers before left."""
    last = [m for m in model.modules() if isinstance(m, KN)][-1]
    x = torch.randn(2, last.num_features, 3, 3).double()
    with pytest.raises(RuntimeError, match='runs outside of the forward of the'):
        last.train()(x)
    last.link.session.open()
    with pytest.raises(RuntimeError, match='has not run before it in this forward'):
        last(x)
    last.link.session.close()
