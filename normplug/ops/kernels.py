"""The passes of :mod:`normplug.ops.passes` as Triton kernels, for the graphs of a GPU.

Inductor chooses blocks and splits of a reduction by the first size that it sees, and reads half
precision two bytes at a time. Here a tile is a function of the range that a size falls into, so
that code made for a stem never serves the boxes of a head, and aligned values are read 16 bytes
at a time.

x is (N, C, P) with pixels innermost, or channels (channels_last). A program takes one instance,
``ROWS`` channels, and one of ``splits`` pieces of the pixels, ``BLOCK`` of them at a time. What the
pieces sum is added up in the graph, in the precision of the rule: that stays plain torch.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import wrap_triton

from normplug.ops.traced import pixel_class
from normplug.precision import working_dtype
from normplug.stats import Moments

__all__ = ['affine', 'backward_input', 'backward_reduce', 'fits', 'moments', 'taken']

_WIDEST = 16  # bytes of a load
# Where pixels are innermost, by their class: channels and pixels at a time, pieces, and how many
# pixels a loop of known length takes. Of small maps a warp takes several rows: what a row's threads
# have summed is added up in a few steps then. Channels_last, pieces make up for few rows; of maps
# of 257 to 2048 pixels, a block of more warps does, because pieces take launches to add up.
_TILES = (32, 16, 1, 64), (16, 32, 1, 0), (4, 256, 1, 0), (1, 1024, 1, 0), (1, 2048, 8, 0)
_WHOLE, _TALL, _PIECE = (64, 16), (16, 256), (32, 32)
_PIECES = 128, 32, 8


class Tile(NamedTuple):
    """How the programs of a pass share x.

    Attributes:
        rows, block: channels and pixels at a time.
        splits: pieces of the pixels.
        whole: pixels at most, where a loop of known length takes all; else 0.
        last: whether channels are innermost, not pixels.
        aligned: every run of innermost values begins and ends at a multiple of so many.
        warps: of a program.
    """

    rows: int
    block: int
    splits: int
    whole: int
    last: bool
    aligned: int
    warps: int = 4


def fits(x_n: Tensor) -> bool:
    """Whether the kernels take x, and what is of its size: (N, C, P), P or C of x innermost."""
    return x_n.dim() == 3 and (x_n.stride(2) == 1 or x_n.stride(1) == 1)


def tile(x_n: Tensor, *others: Tensor) -> Tile:
    """The tile of passes over tensors of x's shape.

    Asked of symbols, each comparison becomes a guard of the code. Pieces make some hundred programs
    of a large map of few channels, several for each processor of an H100.
    """
    instances, channels, pixels = x_n.shape
    last = bool(x_n.stride(2) != 1)
    inner = 1 if last else 2
    wide = _WIDEST // x_n.element_size()
    runs = [t.stride(axis) for t in (x_n, *others) for axis in range(3) if axis != inner]
    aligned = wide if all(run % wide == 0 for run in (x_n.shape[inner], *runs)) else 1
    kind, rows = pixel_class(pixels), instances * channels
    if not last:
        return Tile(*_TILES[kind], last, aligned)
    if kind == 2 and rows <= 2**14:
        return Tile(*_TALL, 1, 0, last, aligned, 16)
    wanted = next((s for s in _PIECES if rows * s <= 2**15), 1)
    most = next((s for s in _PIECES if pixels >= 64 * s), 1)
    splits = min(wanted, most)
    return Tile(*(_PIECE if splits > 1 else _WHOLE), splits, 0, last, aligned)


def taken(t_nc: Tensor, x_n: Tensor) -> Tensor:
    """As :func:`normplug.ops.passes.taken`; the kernels round what they load."""
    return t_nc.contiguous()


def moments(x_n: Tensor, dtype: torch.dtype = torch.float64) -> Moments:
    """As :func:`normplug.ops.passes.moments`."""
    t, pixels = tile(x_n), x_n.shape[2]
    if t.splits == 1:
        mean_nc, var_nc = (x_n.new_empty(x_n.shape[:2], dtype=dtype) for _ in range(2))
        _launch(_moments_kernel, t, x_n, (x_n, mean_nc, var_nc, None))
        return Moments(mean_nc, var_nc)
    about, sums, squares = (_partial(x_n, t) for _ in range(3))
    _launch(_moments_kernel, t, x_n, (x_n, about, sums, squares))
    about, sums, squares = (part.to(dtype) for part in (about, sums, squares))
    centre_nc = about[0]
    piece = _piece(t, pixels)  # all about one value
    starts = piece * torch.arange(t.splits, device=x_n.device)
    counts = (pixels - starts).clamp(0, piece).to(dtype)[:, None, None]
    if dtype != torch.float64:  # which has digits enough if a part of x was far off
        off = about - centre_nc
        centre_nc = centre_nc + _total(sums + counts * off, dtype) / pixels
    off = about - centre_nc
    squares = squares + off * (2 * sums + counts * off)
    sums = sums + counts * off
    mean_nc, square_nc = (_total(part, dtype) / pixels for part in (sums, squares))
    return Moments(centre_nc + mean_nc, (square_nc - mean_nc.square()).clamp(min=0))


def affine(
    x_n: Tensor, mean_nc: Tensor, scale_nc: Tensor, offset_nc: Tensor, out_n: Tensor | None = None
) -> Tensor:
    """As :func:`normplug.ops.passes.affine`."""
    y_n = torch.empty_like(x_n) if out_n is None else out_n
    small = mean_nc, scale_nc, offset_nc
    _launch(_affine_kernel, tile(x_n, y_n), x_n, (x_n, y_n, *small), y_n)
    return y_n


def backward_reduce(dy_n: Tensor, x_n: Tensor, mean_nc: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`normplug.ops.passes.backward_reduce`, in the dtype of the mean."""
    t = tile(x_n, dy_n)
    sums, products = (_partial(x_n, t) for _ in range(2))
    _launch(_sums_kernel, t, x_n, (x_n, dy_n, mean_nc, sums, products), dy_n)
    return _total(sums, mean_nc.dtype), _total(products, mean_nc.dtype)


def backward_input(
    dy_n: Tensor,
    x_n: Tensor,
    mean_nc: Tensor,
    scale_nc: Tensor,
    slope_nc: Tensor,
    level_nc: Tensor,
    out_n: Tensor | None = None,
) -> Tensor:
    """As :func:`normplug.ops.passes.backward_input`."""
    dx_n = torch.empty_like(x_n) if out_n is None else out_n
    small = mean_nc, scale_nc, slope_nc, level_nc
    t = tile(x_n, dy_n, dx_n)
    _launch(_input_kernel, t, x_n, (x_n, dy_n, dx_n, *small), dy_n, dx_n)
    return dx_n


def _launch(
    kernel: triton.JITFunction,
    t: Tile,
    x_n: Tensor,
    tensors: tuple[Tensor, ...],
    *others: Tensor,
) -> None:
    """Run ``kernel`` on ``tensors``, the sizes and strides of x and the strides of ``others``."""
    instances, channels, pixels = x_n.shape
    strides = (stride for other in (x_n, *others) for stride in other.stride())
    wrap_triton(kernel)[instances, triton.cdiv(channels, t.rows), t.splits](
        *tensors,
        channels,
        pixels,
        _piece(t, pixels),
        *strides,
        ROWS=t.rows,
        BLOCK=t.block,
        WHOLE=t.whole,
        LAST=t.last,
        ALIGNED=t.aligned,
        WIDE=tl.float64 if x_n.dtype == torch.float64 else tl.float32,
        num_warps=t.warps,
    )


def _piece(t: Tile, pixels: int) -> int:
    """The pixels of a piece; the last ones may have fewer, or none."""
    return pixels if t.splits == 1 else triton.cdiv(pixels, t.splits * t.block) * t.block


def _partial(x_n: Tensor, t: Tile) -> Tensor:
    """Memory for a sum of each piece, (splits, N, C)."""
    return x_n.new_empty((t.splits, *x_n.shape[:2]), dtype=working_dtype(x_n))


def _total(part: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum over the pieces, (N, C); over a few, it takes no launch of its own."""
    if part.shape[0] > 8:
        return part.to(dtype).sum(0)
    first, *rest = part.to(dtype).unbind()
    return sum(rest, first)


@triton.jit
def _multiple(size, of: tl.constexpr, dtype: tl.constexpr):
    """``size``, a multiple of ``of``, as a product: the compiler then sees it, and loads widely."""
    return tl.full((), size, dtype) // of * of


@triton.jit
def _place(
    C, P, piece,
    ROWS: tl.constexpr, WHOLE: tl.constexpr, LAST: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """Instance; channels, and which of them x has; where this program's pixels begin and end."""
    if LAST:
        C = _multiple(C, ALIGNED, tl.int32)
        P = tl.full((), P, tl.int32)
        piece = tl.full((), piece, tl.int32)
    else:
        C = tl.full((), C, tl.int32)
        P = _multiple(P, ALIGNED, tl.int32)
        piece = _multiple(piece, ALIGNED, tl.int32)
    n = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    start = tl.program_id(2) * piece
    stop = tl.minimum(start + piece, P)
    if WHOLE:
        start = 0
        stop = P
    elif not LAST:
        stop = _multiple(stop, ALIGNED, tl.int32)
    return n, c, c < C, C, start, stop


@triton.jit
def _at(n, c, p, sn, sc, sp, LAST: tl.constexpr, ALIGNED: tl.constexpr):
    """Offsets of channels and pixels from a tensor's start."""
    sn = _multiple(sn, ALIGNED, tl.int64)
    if LAST:
        sp = _multiple(sp, ALIGNED, tl.int64)
    else:
        sc = _multiple(sc, ALIGNED, tl.int64)
    return n * sn + c[:, None] * sc + p[None, :] * sp


@triton.jit
def _from(q, sp, LAST: tl.constexpr, ALIGNED: tl.constexpr):
    """The offset of pixel q."""
    if LAST:
        sp = _multiple(sp, ALIGNED, tl.int64)
    return tl.full((), q, tl.int64) * sp


@triton.jit
def _moments_kernel(
    x_ptr, about_ptr, sum_ptr, square_ptr,
    C, P, piece, sn, sc, sp,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
    WHOLE: tl.constexpr, LAST: tl.constexpr, ALIGNED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Σ(x − about) and Σ(x − about)² of a piece, and what they are about.

    Without memory for the squares: mean and variance, of the only piece.
    """
    n, c, ok, C, start, stop = _place(C, P, piece, ROWS, WHOLE, LAST, ALIGNED)
    p = tl.arange(0, BLOCK)
    at = _at(n, c, p, sn, sc, sp, LAST, ALIGNED)
    mask = ok[:, None] & (p < stop - start)[None, :]
    x = tl.load(x_ptr + _from(start, sp, LAST, ALIGNED) + at, mask, 0.0).to(WIDE)
    # The mean of the piece's first block; of few pixels, the first.
    if WHOLE > 0 and not LAST:
        about = tl.load(x_ptr + n * sn + c * sc + _from(start, sp, LAST, ALIGNED), ok, 0.0).to(WIDE)
    else:
        about = tl.sum(x, 1) * (1.0 / tl.maximum(tl.minimum(stop - start, BLOCK), 1))
    sums = tl.where(mask, x - about[:, None], 0.0)
    squares = sums * sums
    for q in range(start + BLOCK, WHOLE if WHOLE else stop, BLOCK):
        mask = ok[:, None] & (p < stop - q)[None, :]
        x = tl.load(x_ptr + _from(q, sp, LAST, ALIGNED) + at, mask, 0.0).to(WIDE)
        d = tl.where(mask, x - about[:, None], 0.0)
        sums += d
        squares += d * d
    out = (tl.program_id(2).to(tl.int64) * tl.num_programs(0) + n) * C + c
    total = tl.sum(sums, 1)
    square = tl.sum(squares, 1)
    if square_ptr is None:
        OWN: tl.constexpr = about_ptr.dtype.element_ty
        mean = total.to(OWN) / P
        tl.store(about_ptr + out, about.to(OWN) + mean, ok)
        var = square.to(OWN) / P - mean * mean
        tl.store(sum_ptr + out, tl.where(var < 0.0, 0.0, var), ok)  # NaN stays, as in clamp
    else:
        tl.store(about_ptr + out, about, ok)
        tl.store(sum_ptr + out, total, ok)
        tl.store(square_ptr + out, square, ok)


@triton.jit
def _affine_kernel(
    x_ptr, y_ptr, mean_ptr, scale_ptr, offset_ptr,
    C, P, piece, sn, sc, sp, yn, yc, yp,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
    WHOLE: tl.constexpr, LAST: tl.constexpr, ALIGNED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """(x − mean) · scale + offset."""
    n, c, ok, C, start, stop = _place(C, P, piece, ROWS, WHOLE, LAST, ALIGNED)
    mean = tl.load(mean_ptr + n * C + c, ok, 0.0).to(WIDE)[:, None]
    scale = tl.load(scale_ptr + n * C + c, ok, 0.0).to(WIDE)[:, None]
    offset = tl.load(offset_ptr + n * C + c, ok, 0.0).to(WIDE)[:, None]
    p = tl.arange(0, BLOCK)
    x_at = _at(n, c, p, sn, sc, sp, LAST, ALIGNED)
    y_at = _at(n, c, p, yn, yc, yp, LAST, ALIGNED)
    for q in range(start, WHOLE if WHOLE else stop, BLOCK):
        mask = ok[:, None] & (p < stop - q)[None, :]
        x = tl.load(x_ptr + _from(q, sp, LAST, ALIGNED) + x_at, mask, 0.0).to(WIDE)
        tl.store(y_ptr + _from(q, yp, LAST, ALIGNED) + y_at, (x - mean) * scale + offset, mask)


@triton.jit
def _sums_kernel(
    x_ptr, dy_ptr, mean_ptr, sum_ptr, product_ptr,
    C, P, piece, sn, sc, sp, dn, dc, dp,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
    WHOLE: tl.constexpr, LAST: tl.constexpr, ALIGNED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Σ dy and Σ dy · (x − mean) of a piece."""
    n, c, ok, C, start, stop = _place(C, P, piece, ROWS, WHOLE, LAST, ALIGNED)
    mean = tl.load(mean_ptr + n * C + c, ok, 0.0).to(WIDE)[:, None]
    p = tl.arange(0, BLOCK)
    x_at = _at(n, c, p, sn, sc, sp, LAST, ALIGNED)
    dy_at = _at(n, c, p, dn, dc, dp, LAST, ALIGNED)
    sums = tl.zeros([ROWS, BLOCK], WIDE)
    products = tl.zeros([ROWS, BLOCK], WIDE)
    for q in range(start, WHOLE if WHOLE else stop, BLOCK):
        mask = ok[:, None] & (p < stop - q)[None, :]
        x = tl.load(x_ptr + _from(q, sp, LAST, ALIGNED) + x_at, mask, 0.0).to(WIDE)
        dy = tl.load(dy_ptr + _from(q, dp, LAST, ALIGNED) + dy_at, mask, 0.0).to(WIDE)
        sums += dy
        products += dy * (x - mean)
    out = (tl.program_id(2).to(tl.int64) * tl.num_programs(0) + n) * C + c
    tl.store(sum_ptr + out, tl.sum(sums, 1), ok)
    tl.store(product_ptr + out, tl.sum(products, 1), ok)


@triton.jit
def _input_kernel(
    x_ptr, dy_ptr, dx_ptr, mean_ptr, scale_ptr, slope_ptr, level_ptr,
    C, P, piece, sn, sc, sp, dn, dc, dp, yn, yc, yp,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
    WHOLE: tl.constexpr, LAST: tl.constexpr, ALIGNED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """dy · scale + (x − mean) · slope + level."""
    n, c, ok, C, start, stop = _place(C, P, piece, ROWS, WHOLE, LAST, ALIGNED)
    mean = tl.load(mean_ptr + n * C + c, ok, 0.0).to(WIDE)[:, None]
    scale = tl.load(scale_ptr + n * C + c, ok, 0.0).to(WIDE)[:, None]
    slope = tl.load(slope_ptr + n * C + c, ok, 0.0).to(WIDE)[:, None]
    level = tl.load(level_ptr + n * C + c, ok, 0.0).to(WIDE)[:, None]
    p = tl.arange(0, BLOCK)
    x_at = _at(n, c, p, sn, sc, sp, LAST, ALIGNED)
    dy_at = _at(n, c, p, dn, dc, dp, LAST, ALIGNED)
    dx_at = _at(n, c, p, yn, yc, yp, LAST, ALIGNED)
    for q in range(start, WHOLE if WHOLE else stop, BLOCK):
        mask = ok[:, None] & (p < stop - q)[None, :]
        x = tl.load(x_ptr + _from(q, sp, LAST, ALIGNED) + x_at, mask, 0.0).to(WIDE)
        dy = tl.load(dy_ptr + _from(q, dp, LAST, ALIGNED) + dy_at, mask, 0.0).to(WIDE)
        dx = dy * scale + ((x - mean) * slope + level)
        tl.store(dx_ptr + _from(q, yp, LAST, ALIGNED) + dx_at, dx, mask)
