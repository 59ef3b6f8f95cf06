"""Block by block, the passes give what plain torch gives on the whole tensor."""

import pytest
import torch

from normplug import IBN, SN
from normplug.ops import blocked, passes

# (block, shape): rows of planes, planes in pieces, the last piece of another size, one block.
CASES = [(60, (3, 4, 35)), (16, (2, 3, 35)), (30, (1, 1, 47)), (2, (2, 3, 5)), (1000, (2, 3, 5))]


@pytest.fixture(params=CASES, ids=str)
def x(request, monkeypatch):
    block, shape = request.param
    monkeypatch.setattr(blocked, 'values_at_once', lambda: block)
    return 3 * torch.randn(shape) + 7


@pytest.fixture(params=['contiguous', 'channels last'])
def layout(request):
    if request.param == 'contiguous':
        return torch.Tensor.contiguous
    return lambda t: t.transpose(1, 2).contiguous().transpose(1, 2)


def small(x, count):
    return [torch.randn(x.shape[:2]) for _ in range(count)]


def assert_close(ours, whole):
    torch.testing.assert_close(ours, whole, rtol=2e-6, atol=2e-6)


def test_moments(x, layout):
    ours, whole = blocked.moments(layout(x)), passes.moments(x)
    assert ours.mean.dtype == ours.var.dtype == torch.float64
    assert_close(tuple(ours), tuple(whole))


def test_affine(x, layout):
    args = small(x, 3)
    ours = blocked.affine(layout(x), *args)
    assert ours.stride() == layout(x).stride()
    assert torch.equal(ours, passes.affine(x, *args))


def test_backward_reduce(x, layout):
    dy, (mean,) = torch.randn_like(x), small(x, 1)
    ours = blocked.backward_reduce(layout(dy), layout(x), mean)
    for own, whole in zip(ours, passes.backward_reduce(dy, x, mean), strict=True):
        torch.testing.assert_close(own, whole, rtol=1e-5, atol=2e-5)


def test_backward_input(x, layout):
    dy, args = torch.randn_like(x), small(x, 4)
    ours = blocked.backward_input(layout(dy), layout(x), *args)
    assert ours.stride() == layout(x).stride()
    assert torch.equal(ours, passes.backward_input(dy, x, *args))


def test_half_precision_is_rounded_once(x, layout):
    """The blocks work in float32 whatever x is, as plain torch does, and round the result."""
    x_half, dy_half = x.bfloat16(), torch.randn_like(x).bfloat16()
    args = small(x, 4)
    y = blocked.affine(layout(x_half), *args[:3])
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, passes.affine(x_half, *args[:3]))
    dx = blocked.backward_input(layout(dy_half), layout(x_half), *args)
    assert dx.dtype == torch.bfloat16
    assert torch.equal(dx, passes.backward_input(dy_half, x_half, *args))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision(dtype, monkeypatch):
    monkeypatch.setattr(blocked, 'values_at_once', lambda: 50)
    x = torch.randn(2, 3, 40).to(dtype)
    args = small(x, 3)
    ours = blocked.affine(x, *args)
    assert ours.dtype == dtype
    assert torch.equal(ours, passes.affine(x, *args))
    assert blocked.moments(x).var.dtype == torch.float64


@pytest.mark.parametrize('kind', [SN, IBN])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_a_layer_takes_the_blocks(kind, memory_format, monkeypatch):
    """And a gradient of another layout than x, which cannot be cut alike, still comes out right."""
    layer = kind(6).double()
    x = torch.randn(2, 6, 9, 8, dtype=torch.float64)
    x = x.contiguous(memory_format=memory_format).requires_grad_()
    for dy in (torch.randn_like(x), torch.randn(2, 6, 9, 8, dtype=torch.float64)):
        y = layer(x)
        grads = torch.autograd.grad(y, (x, *layer.parameters()), dy)
        with monkeypatch.context() as patch:
            patch.setattr(blocked, 'values_at_once', lambda: 64)
            patch.setattr(blocked, 'SMALL', 64)
            assert blocked.fits(x.detach().flatten(2))
            y_blocked = layer(x)
            grads_blocked = torch.autograd.grad(y_blocked, (x, *layer.parameters()), dy)
        torch.testing.assert_close(y_blocked, y, rtol=1e-12, atol=1e-12)
        for ours, whole in zip(grads_blocked, grads, strict=True):
            torch.testing.assert_close(ours, whole, rtol=1e-10, atol=1e-10)


def test_a_traced_tensor_is_left_to_the_compiler():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        assert not blocked.fits(torch.empty(8, 64, 4096))
    assert blocked.fits(torch.empty(8, 64, 4096))


@pytest.mark.parametrize('first', [0.0, 1e6])
def test_moments_of_a_plane_whose_first_pixels_say_nothing_of_it(first):
    """As a zero-padded image has them: x is centred at their mean."""
    x = torch.randn(2, 3, 6400, dtype=torch.float64) + 1e4
    x[:, :, :400] = first
    ours = passes.moments(x.float())
    var, mean = torch.var_mean(x, 2, correction=0)
    assert ((ours.mean - mean).abs() < 1e-6 * var.sqrt()).all()
    torch.testing.assert_close(ours.var, var, rtol=1e-5, atol=0)
