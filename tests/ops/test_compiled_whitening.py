"""Whitening by compiled steps, as on a GPU, of C++ here: the mechanism, not the code."""

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


@pytest.mark.slow
@pytest.mark.parametrize('name', BUILDS)
def test_compiled_as_on_a_gpu(monkeypatch, name):
    torch.manual_seed(0)
    eager = BUILDS[name]()
    layer = BUILDS[name]()
    set_backend('compiled')
    before = compiled.count()
    for shape in [(3, 8, 6, 5), (5, 8, 7, 8)]:
        x, dy = random_input(shape, seed=1), random_input(shape, seed=2)
        want = trained(eager, x, dy)
        with monkeypatch.context() as patch:
            patch.setattr(fused, 'on_gpu', lambda x: True)
            patch.setattr(compiled, 'on_gpu', lambda x: True)  # what is new is tried out
            got = trained(layer, x, dy)
        assert_same(got, want, TOLERANCE[torch.float32])
        assert compiled.count() == before + 2
