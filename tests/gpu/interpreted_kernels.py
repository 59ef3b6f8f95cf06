"""The passes of kernels.py in Triton's interpreter, on CPU tensors; test_kernels.py runs this.

The interpreter is chosen when a kernel is defined, so this has a process of its own.
"""

import pytest
import torch

from normplug.ops import kernels, passes
from normplug.precision import working_dtype
from tests.cases import TOLERANCE

# In each class of pixels, at its bounds; channels that fill no tile, and more than one.
SHAPES = [
    *((2, 3, pixels) for pixels in (1, 5, 64, 65)),
    (1, 70, 49),
    (1, 64, 40),
    (1, 3, 256),
    (2, 3, 257),
    (1, 40, 300),
    (2, 8, 1050),
    (1, 3, 2048),
    (1, 3, 2049),
    (1, 40, 2049),
    (1, 1, 8192),
    (1, 2, 8193),
]
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Kernels launched as they are; memory that nobody wrote is NaN."""
    monkeypatch.setattr(kernels, 'wrap_triton', lambda kernel: kernel)
    monkeypatch.setattr(torch.utils.deterministic, 'fill_uninitialized_memory', True)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def laid_out(t, last):
    return t.transpose(1, 2).contiguous().transpose(1, 2) if last else t


def assert_near(got, want, tolerance, floor=1.0):
    assert got.shape == want.shape
    error = (got.double() - want).abs().max().item()
    assert error <= tolerance * max(floor, want.abs().max().item())


def check(x, dy, out=None):
    """All four passes against float64."""
    exact, tolerance = x.double(), TOLERANCE[x.dtype]
    fine = TOLERANCE[working_dtype(x)]  # of what is summed, and not rounded to x's dtype
    mean, var = kernels.moments(x)
    std = exact.std(2, correction=0).max().item()
    assert_near(mean, exact.mean(2), 1e-6 * std if x.dtype != torch.float64 else 1e-13)
    assert_near(var, exact.var(2, correction=0), fine)
    small = [torch.randn(x.shape[:2], dtype=torch.float64) for _ in range(3)]
    centre = exact.mean(2).to(working_dtype(x)).double()
    sums = kernels.backward_reduce(dy, x, centre)
    # A sum of values of both signs is off by what its terms are.
    for got, want in zip(sums, passes.backward_reduce(dy.double(), exact, centre), strict=True):
        assert_near(got, want, fine, floor=x.shape[2] ** 0.5 * max(std, 1))
    y = kernels.affine(x, centre, *small[:2], None if out is None else out.clone())
    assert_near(y, passes.affine(exact, centre, *small[:2]), tolerance)
    dx = kernels.backward_input(dy, x, centre, *small, out)
    assert_near(dx, passes.backward_input(dy.double(), exact, centre, *small), tolerance)
    assert y.dtype == dx.dtype == x.dtype
    if out is None:
        assert dx.stride() == torch.empty_like(x).stride()


@pytest.mark.parametrize('last', [False, True], ids=['contiguous', 'channels_last'])
@pytest.mark.parametrize('shape', SHAPES, ids=lambda s: 'x'.join(map(str, s)))
def test_sizes(shape, last):
    x, dy = (laid_out(torch.randn(shape), last) for _ in range(2))
    check(3 * x + 2, dy)


@pytest.mark.parametrize('last', [False, True], ids=['contiguous', 'channels_last'])
@pytest.mark.parametrize('shape', [(2, 8, 64), (2, 3, 301)], ids=str)
@pytest.mark.parametrize('dtype', DTYPES[1:], ids=str)
def test_dtypes(dtype, shape, last):
    x, dy = (laid_out(torch.randn(shape).to(dtype), last) for _ in range(2))
    check(x, dy)


@pytest.mark.parametrize('last', [False, True], ids=['contiguous', 'channels_last'])
@pytest.mark.parametrize('shape', [(2, 3, 49), (2, 3, 1050), (1, 2, 8193)], ids=str)
def test_a_large_mean_costs_no_digits_that_the_reference_keeps(shape, last):
    x = laid_out((torch.randn(shape, dtype=torch.float64) + 1e3).float(), last)
    exact = x.double()
    mean, var = exact.mean(2), exact.var(2, correction=0)
    ours, plain = kernels.moments(x), passes.moments(x)
    for got, theirs, want in zip(ours, plain, (mean, var), strict=True):
        allowed = 2 * (theirs - want).abs().max() + 1e-5 * var.max()
        assert (got - want).abs().max() <= allowed


@pytest.mark.parametrize('last', [False, True], ids=['contiguous', 'channels_last'])
def test_pieces_in_float32(last):
    """Of which the first is far off, and the mean is large."""
    x = torch.randn(1, 2, 16401) + 1e3
    x[..., :32] += 30
    x = laid_out(x, last)
    exact = x.double()
    mean, var = kernels.moments(x, torch.float32)
    assert mean.dtype == var.dtype == torch.float32
    assert (mean - exact.mean(2)).abs().max() < 1.01 * 2**-14  # a step of float32 there
    assert (var / exact.var(2, correction=0) - 1).abs().max() < 2e-6


def test_other_strides():
    """A gradient that was expanded, a slice of channels, an output of other strides."""
    shape = 2, 8, 64
    x = torch.randn(shape)
    expanded = torch.randn(*shape[:2], 1).expand(shape)
    check(x, expanded)
    wide = torch.randn(shape[0], shape[1] + 5, shape[2])[:, 2 : 2 + shape[1]]
    check(wide, x)
    check(x, wide)
    padded = torch.randn(*shape[:2], shape[2] + 3)[..., : shape[2]]
    check(padded, x)
    check(x, torch.randn(shape), torch.full_like(wide.clone(), float('nan')))


@pytest.mark.parametrize('last', [False, True], ids=['contiguous', 'channels_last'])
@pytest.mark.parametrize('pixels', [49, 1050])
def test_the_tile_of_another_class_is_right(pixels, last, monkeypatch):
    x, dy = (laid_out(torch.randn(2, 5, pixels), last) for _ in range(2))
    other = kernels.tile
    shapes = [(64, 16, 1), (32, 32, 8), (16, 256, 1)] if last else [
        (32, 16, 1), (16, 32, 1), (4, 256, 1), (1, 1024, 1), (1, 2048, 8),
    ]  # fmt: skip
    for rows, block, splits in shapes:
        tile = kernels.Tile(rows, block, splits, whole=0, last=last, aligned=1)
        monkeypatch.setattr(kernels, 'tile', lambda *_, tile=tile: tile)
        check(x, dy)
    monkeypatch.setattr(kernels, 'tile', other)
