import math

import pytest
import torch
from torch.autograd import gradcheck

from normplug.sparsestmax import sparsestmax


def logits_of(*shape):
    return torch.randn(shape, dtype=torch.float64)


def radius_of(value):
    return torch.tensor(value, dtype=torch.float64)


def projection(v):
    """Onto the simplex, by bisection of the threshold."""
    low, high = v.min() - 1, v.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (v - middle).clamp(min=0).sum() > 1 else (low, middle)
    return (v - low).clamp(min=0)


@pytest.mark.parametrize('size', [1, 2, 3, 5])
def test_radius_0_is_the_projection(size):
    logits = 2 * logits_of(20, size)
    want = torch.stack([projection(v) for v in logits])
    torch.testing.assert_close(sparsestmax(logits, radius_of(0.0)), want)


@pytest.mark.parametrize('size', [2, 3, 4])
@pytest.mark.parametrize('radius', [0.0, 0.2, 0.45, 0.7, 0.8, 1.0])
def test_on_the_simplex_and_outside_the_ball(size, radius):
    point = sparsestmax(logits_of(50, size), radius_of(radius))
    assert (point >= 0).all()
    torch.testing.assert_close(point.sum(-1), torch.ones(50, dtype=torch.float64))
    distance = (point - 1 / size).norm(dim=-1)
    corner = math.sqrt(1 - 1 / size)  # no point of the simplex is farther from its centre
    assert (distance >= min(radius, corner) - 1e-9).all()


def test_nearly_tied_logits_are_all_active_then_one():
    nearly_tied = 1 + 1e-3 * logits_of(50, 3)
    inner, outer = math.sqrt(1 / 6), math.sqrt(2 / 3)
    for radius, active in ((inner - 1e-2, {3}), (outer - 1e-2, {2, 3}), (outer + 1e-3, {1})):
        point = sparsestmax(nearly_tied, radius_of(radius))
        assert set((point > 1e-9).sum(-1).tolist()) <= active


def test_the_largest_logit_wins():
    logits = logits_of(50, 3)
    point = sparsestmax(logits, radius_of(1.0))
    assert torch.equal(point.argmax(-1), logits.argmax(-1))
    assert ((point == 0) | (point - 1).abs().lt(1e-12)).all()


@pytest.mark.parametrize('radius', [0.0, 0.3, 0.7, 0.8, 1.0])
@pytest.mark.parametrize('scale', [1.0, 100.0])
def test_float32_is_as_good(scale, radius):
    logits = (scale * logits_of(20000, 3)).float()
    want = sparsestmax(logits.double(), radius_of(radius))
    got = sparsestmax(logits, radius_of(radius).float())
    torch.testing.assert_close(got.double(), want, rtol=0, atol=1e-3)
    if radius == 1:
        assert (got.amax(-1) >= 1 - 4 * torch.finfo(torch.float32).eps).all()


@pytest.mark.parametrize('radius', [0.0, 0.3, 1.0])
def test_tied_logits_stay_on_the_simplex(radius):
    logits = torch.ones(3, dtype=torch.float64, requires_grad=True)
    point = sparsestmax(logits, radius_of(radius))
    torch.testing.assert_close(point, torch.full_like(point, 1 / 3))
    point[0].backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize('radius', [0.0, 0.3, 0.5, 0.7])
def test_gradient(radius):
    logits = (0.3 * logits_of(6, 3)).requires_grad_()
    assert gradcheck(lambda v: sparsestmax(v, radius_of(radius)), logits)


def test_a_radius_for_each_row():
    logits, radius = logits_of(4, 3), torch.tensor([[0.0], [0.3], [0.5], [1.0]])
    want = torch.stack([sparsestmax(v, r[0]) for v, r in zip(logits, radius, strict=True)])
    assert torch.equal(sparsestmax(logits, radius), want)


def test_compiles_as_one_graph():
    torch.compiler.reset()
    compiled = torch.compile(sparsestmax, fullgraph=True, backend='aot_eager')
    logits, radius = logits_of(2, 3), radius_of(0.5)
    assert torch.equal(compiled(logits, radius), sparsestmax(logits, radius))
