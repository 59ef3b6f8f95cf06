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
from normplug.ops.triton_code import affine_kernel, input_kernel, moments_kernel, sums_kernel
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
        _launch(moments_kernel, t, x_n, (x_n, mean_nc, var_nc, None))
        return Moments(mean_nc, var_nc)
    about, sums, squares = (_partial(x_n, t) for _ in range(3))
    _launch(moments_kernel, t, x_n, (x_n, about, sums, squares))
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
    _launch(affine_kernel, tile(x_n, y_n), x_n, (x_n, y_n, *small), y_n)
    return y_n


def backward_reduce(dy_n: Tensor, x_n: Tensor, mean_nc: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`normplug.ops.passes.backward_reduce`, in the dtype of the mean."""
    t = tile(x_n, dy_n)
    sums, products = (_partial(x_n, t) for _ in range(2))
    _launch(sums_kernel, t, x_n, (x_n, dy_n, mean_nc, sums, products), dy_n)
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
    _launch(input_kernel, t, x_n, (x_n, dy_n, dx_n, *small), dy_n, dx_n)
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
