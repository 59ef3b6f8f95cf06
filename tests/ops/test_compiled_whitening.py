"""Whitening by compiled steps, as on a GPU, of C++ here: the mechanism, not the code."""

from contextlib import contextmanager

import pytest
import torch

from normplug import set_backend
from normplug.norms import GW, SW
from normplug.ops import compiled, fused
from tests.cases import TOLERANCE, assert_same, random_input

# Not IterNorm: Inductor 2.11 fails on its C++, fusing what depends on a condition on sizes. Its
# Triton is written, compiled and interpreted in tests/gpu.
BUILDS = {
    'SW': lambda: SW(8, num_pergroup=2, sw_type=3),
    'GW': lambda: GW(8, num_groups=4),
}


def trained(layer, x, dy):
    """Results and state of a training step."""
    x = x.clone().requires_grad_()
    y = layer(x)
    y.backward(dy)
    grads = {f'd{name}': p.grad for name, p in layer.named_parameters()}
    return {'y': y.detach(), 'dx': x.grad, **grads, **layer.state_dict()}


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Within it, steps are compiled, and what is new is tried out."""

    @contextmanager
    def patched():
        with monkeypatch.context() as patch:
            patch.setattr(fused, 'on_gpu', lambda x: True)
            patch.setattr(compiled, 'on_gpu', lambda x: True)
            yield

    set_backend('compiled')
    return patched


@pytest.mark.slow
@pytest.mark.parametrize('name', BUILDS)
def test_compiled_as_on_a_gpu(as_on_a_gpu, name):
    torch.manual_seed(0)
    eager = BUILDS[name]()
    layer = BUILDS[name]()
    before = compiled.count()
    for shape in [(3, 8, 6, 5), (5, 8, 7, 8)]:
        x, dy = random_input(shape, seed=1), random_input(shape, seed=2)
        want = trained(eager, x, dy)
        with as_on_a_gpu():
            got = trained(layer, x, dy)
        assert_same(got, want, TOLERANCE[torch.float32])
        assert compiled.count() == before + 2


@pytest.mark.slow
def test_a_running_matrix_of_the_shape_of_x_moves_once(as_on_a_gpu):
    """Trying new code out gives it copies of what is not x."""
    torch.manual_seed(0)
    eager, layer = (SW(4, num_pergroup=4, sw_type=2) for _ in range(2))
    x, dy = random_input((1, 4, 2, 2), seed=1), random_input((1, 4, 2, 2), seed=2)
    want = trained(eager, x, dy)
    with as_on_a_gpu():
        got = trained(layer, x, dy)
    assert_same(got, want, TOLERANCE[torch.float32])
