"""What a program of each pass does, in Triton; :mod:`normplug.ops.kernels` starts them.

x is (N, C, P). A program takes one instance, ``ROWS`` channels, and one piece of the pixels,
``BLOCK`` of them at a time.
"""

import triton
import triton.language as tl

__all__ = ['affine_kernel', 'input_kernel', 'moments_kernel', 'sums_kernel']


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
def moments_kernel(
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
def affine_kernel(
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
def sums_kernel(
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
def input_kernel(
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
