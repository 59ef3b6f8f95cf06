"""The four passes over the full tensor for blocks of channels: the twin of passes and blocked.

In blocks, x is (N, g, d, k, S): see :class:`normplug.ops.plan.Blocks`. Names that end in ``_p``
are pieces of such tensors. On a CPU a piece, what is centred of it, and the products with it stay
in the cache: a product of d rows with all the pixels waits for memory most of the time.

x is centred before it is multiplied by itself or by anything else: for its covariance near the mean
of the piece, then at the mean of its image, in the precision of the products: float32, float64 for
float64.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import chain, pairwise
from operator import add
from typing import NamedTuple

import torch
from torch import Tensor

from normplug.covariance import Covariances, Linear, merge, outer
from normplug.ops import blocked
from normplug.ops.memory import is_plain
from normplug.ops.passes import cast, pixels_of
from normplug.ops.plan import Blocks
from normplug.ops.products import product
from normplug.precision import working_dtype

__all__ = ['affine', 'backward_input', 'backward_reduce', 'centre_of', 'moments', 'values_at_once']

_PART = 16  # of the pixels of a piece, one in so many gives its centre


def centre_of(mean: Tensor, x_n: Tensor) -> Tensor:
    """What the passes subtract, (N, g, d): a constant, as no result depends on it."""
    return mean.detach().to(working_dtype(x_n))


def moments(x_n: Tensor, blocks: Blocks, dtype: torch.dtype) -> Covariances:
    """Mean (N, g, d), as ``dtype``, and biased covariance (N, g, d, d) of every image."""
    if x_n.numel() == 0:  # a sum: autograd's graph is that of all ranks
        mean = _rows(x_n, blocks).sum((3, 4), dtype=dtype)
        return Covariances(mean, outer(mean).to(working_dtype(x_n)))
    x, found = _rows(x_n, blocks), []
    for group in _groups(blocks, x_n):
        x_ps = [piece.rows(x) for chunk in group for piece in chunk]
        parts = [_moments(x_p, group[0][0], dtype) for x_p in x_ps]
        samples = [x_p.shape[3] * x_p.shape[4] for x_p in x_ps]
        found.append(parts[0] if len(parts) == 1 else _merged(parts, samples))
    mean, cov = (_joined(t, x_n) for t in zip(*found, strict=True))
    return Covariances(mean, cov.to(working_dtype(x_n)))


def affine(
    x_n: Tensor, blocks: Blocks, centre: Tensor, by: Linear, out_n: Tensor | None = None
) -> Tensor | None:
    """scale · (matrix · (x − centre)) + offset, in x's dtype, or written to ``out_n``."""
    x, out = _rows(x_n, blocks), _rows_of_result(out_n, x_n, blocks)
    matrix, scale, offset = _as_products(by, x_n)
    for piece in _pieces(blocks, x_n):
        x_c = _centred(piece.rows(x), piece.of_block(centre))
        y_p = piece.product(piece.of_block(matrix), x_c)
        small = piece.of_channels(scale), piece.of_channels(offset)
        y_n = _scaled(y_p, *small, x_n, piece.rows(out))
    return _result(y_n, out_n)


def backward_reduce(
    dy_n: Tensor, x_n: Tensor, blocks: Blocks, centre: Tensor, by: Linear
) -> Linear:
    """The gradients of matrix, scale and offset in :func:`affine`, in their shapes."""
    x, dy, found = _rows(x_n, blocks), _rows(dy_n, blocks), []
    matrix, scale, _ = _as_products(by, x_n)
    for group in _groups(blocks, x_n, dy_n):
        chunks = []
        for chunk in group:
            parts = [_products(p.rows(dy), p.rows(x), p.of_block(centre), p) for p in chunk]
            chunks.append([reduce(add, part) for part in zip(*parts, strict=True)])
        to_offset, products = (
            t[0] if len(t) == 1 else torch.cat(t, axis)
            for t, axis in zip(zip(*chunks, strict=True), (3, 2), strict=True)
        )
        of_block = group[0][0].of_block
        to_matrix = (of_block(scale).mT.unsqueeze(-1) * products).sum(2)
        to_scale = (of_block(matrix).unsqueeze(2) * products).sum(-1).mT
        found.append((to_matrix, to_scale, to_offset))
    grads = (_joined(t, x_n) for t in zip(*found, strict=True))
    return Linear(
        *(
            (g.sum(0, keepdim=True) if t.shape[0] == 1 else g).to(t.dtype)
            for g, t in zip(grads, by, strict=True)
        )
    )


def backward_input(
    dy_n: Tensor,
    x_n: Tensor,
    blocks: Blocks,
    centre: Tensor,
    by: Linear,
    slope: Tensor,
    level: Tensor,
    out_n: Tensor | None = None,
) -> Tensor | None:
    """matrixᵀ · (scale · dy) + slope · (x − centre) + level, as :func:`affine` gives y."""
    x, dy = _rows(x_n, blocks), _rows(dy_n, blocks)
    out = _rows_of_result(out_n, x_n, blocks)
    small = by.matrix.mT, by.scale, slope, level.unsqueeze(-1)
    matrix, scale, slope, level = _as_products(small, x_n)
    for piece in _pieces(blocks, x_n, dy_n):
        dy_p, x_p, centre_p = piece.rows(dy), piece.rows(x), piece.of_block(centre)
        scale_p = piece.of_channels(scale).unsqueeze(-1)
        matrix_p, slope_p = piece.of_block(matrix), piece.of_block(slope)
        if piece.is_whole:
            dx_p = matrix_p @ _as_rows(dy_p * scale_p) + slope_p @ _centred(x_p, centre_p)
        else:  # both products are one
            number, groups, size, *rest = x_p.shape
            both_p = centre.new_empty((number, groups, 2 * size, *rest))
            torch.mul(dy_p, scale_p, out=both_p[:, :, :size])
            torch.sub(x_p, centre_p[..., None, None], out=both_p[:, :, size:])
            maps_p = torch.cat((matrix_p.expand_as(slope_p), slope_p), -1)
            dx_p = piece.product(maps_p, _as_rows(both_p))
        dx_n = _scaled(dx_p, None, piece.of_channels(level), x_n, piece.rows(out))
    return _result(dx_n, out_n)


def _moments(x_p: Tensor, piece: '_Piece', dtype: torch.dtype) -> Covariances:
    # The mean of some of the pixels is off by at most 4 standard deviations, whatever x is.
    first = x_p if piece.is_whole else x_p[..., : -(-x_p.shape[-1] // _PART)]
    centre = first.mean((3, 4), dtype=working_dtype(x_p))
    x_c = _centred(x_p, centre)
    rest = x_c.mean(-1)  # what the centre left
    cov = piece.product(x_c, x_c.mT) / x_c.shape[-1] - outer(rest)
    return Covariances(centre.to(dtype) + rest, cov)


def _products(
    dy_p: Tensor, x_p: Tensor, centre_p: Tensor, piece: '_Piece'
) -> tuple[Tensor, Tensor]:
    """Σ dy, (n, g, d, k), and Σ dy · (x − centre)ᵀ of each channel of a row, (n, g, k, d, d)."""
    dy_p = cast(dy_p, centre_p.dtype)
    if x_p.shape[3] == 1 or piece.is_whole:
        x_c = _centred(x_p, centre_p).view(x_p.shape).transpose(2, 3)
    else:  # the matrix of each channel in one piece
        x_c = torch.sub(
            x_p.transpose(2, 3),
            centre_p[:, :, None, :, None],
            out=centre_p.new_empty(dy_p.transpose(2, 3).shape),
        )
    return dy_p.sum(-1), piece.product(dy_p.transpose(2, 3), x_c.mT)


def _merged(parts: Sequence[Covariances], samples: Sequence[int]) -> Covariances:
    """Of pieces of one block, of so many samples."""
    mean, cov = (torch.cat(t).to(parts[0].mean.dtype) for t in zip(*parts, strict=True))
    whole, _ = merge(Covariances(mean, cov), mean.new_tensor(samples))
    return Covariances(*(t.unsqueeze(0) for t in whole))


def _as_products(small: Sequence[Tensor], x_n: Tensor) -> list[Tensor]:
    """In the dtype that products with x are computed in."""
    return [t.to(working_dtype(x_n)) for t in small]


def _centred(x_p: Tensor, centre_p: Tensor) -> Tensor:
    """(n, g, d, k, p) as (n, g, d, k · p), of centre's dtype."""
    return _as_rows(x_p - centre_p[..., None, None])


def _as_rows(t_p: Tensor) -> Tensor:
    # Not flatten, which vmap does not take.
    return t_p.reshape(*t_p.shape[:3], t_p.shape[3] * t_p.shape[4])


def _scaled(
    t_p: Tensor, scale_p: Tensor | None, level_p: Tensor, x_n: Tensor, out_p: Tensor | None
) -> Tensor:
    """Scale (1, g, d, k), if any, and add a level (n, g, d, k or 1): into ``out_p``, or as x is."""
    if out_p is not None:
        t_p, level_p = t_p.view(out_p.shape), level_p.unsqueeze(-1)
        if scale_p is not None:
            t_p.mul_(scale_p.unsqueeze(-1))  # addcmul of two broadcast tensors is no vector code
        return torch.add(t_p, level_p, out=out_p)
    # In x's shape before the last operator: y may be no view, see fused._shaped.
    spatial = (1,) * (x_n.dim() - 2)
    width = x_n.shape[1] // (t_p.shape[1] * t_p.shape[2])
    level_p = level_p.expand(*t_p.shape[:3], width).reshape(*x_n.shape[:2], *spatial)
    t_n = t_p.reshape(x_n.shape)
    if scale_p is not None:
        t_n = t_n * scale_p.reshape(-1, *spatial)
    return cast(t_n + level_p, x_n.dtype)


def _result(t_n: Tensor, out_n: Tensor | None) -> Tensor | None:
    """The whole, unless it was or is written to memory that was given."""
    if out_n is None:
        return t_n
    if t_n.dim() == out_n.dim():  # not by pieces
        out_n.copy_(t_n)
    return None


def _joined(parts: Sequence[Tensor], x_n: Tensor) -> Tensor:
    """(n, g', ...) of groups of pieces as (N, g, ...)."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat([t.flatten(0, 1) for t in parts]).unflatten(0, (x_n.shape[0], -1))


def _rows(t_n: Tensor, blocks: Blocks) -> Tensor:
    """(N, C, *spatial) as (N, g, d, k, S)."""
    shape = blocks.size, blocks.width
    # A constant of compiled code: blocks of a symbolic number would cost divisions at each value.
    number = int(t_n.shape[1]) // (blocks.size * blocks.width)
    return t_n.reshape(t_n.shape[0], number, *shape, pixels_of(t_n))


def _rows_of_result(out_n: Tensor | None, x_n: Tensor, blocks: Blocks) -> Tensor | None:
    """None where the one piece is the whole, which is written last."""
    return None if out_n is None or not _is_cut(x_n) else _rows(out_n, blocks)


class _Piece(NamedTuple):
    """A part of (N, g, d, k, S): of some images, blocks, channels of each row, and pixels."""

    images: slice = slice(None)
    blocks: slice = slice(None)
    channels: slice = slice(None)
    pixels: slice = slice(None)

    @property
    def is_whole(self) -> bool:
        return self is _WHOLE

    def rows(self, t: Tensor | None) -> Tensor | None:
        """Of a tensor of x's size."""
        if self.is_whole or t is None:
            return t
        return t[self.images, self.blocks, :, self.channels, self.pixels]

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """Of matrices; the whole may be traced."""
        return left @ right if self.is_whole else product(left, right)

    def of_block(self, t: Tensor) -> Tensor:
        """Of a tensor (N or 1, g, ...)."""
        if self.is_whole:
            return t
        return t[self.images if t.shape[0] > 1 else slice(None), self.blocks]

    def of_channels(self, t: Tensor) -> Tensor:
        """Of a tensor (N or 1, g, d, k or 1)."""
        t_p = self.of_block(t)
        return t_p[..., self.channels] if t.shape[-1] > 1 and not self.is_whole else t_p


_WHOLE = _Piece()


def _is_cut(*large: Tensor) -> bool:
    """Not where x is traced, empty, elsewhere, or cannot be viewed in rows."""
    return all(is_plain(t) and t.is_cpu and t.dim() == 3 and t.numel() > 0 for t in large)


def _pieces(blocks: Blocks, *large: Tensor) -> Iterator[_Piece]:
    for group in _groups(blocks, *large):
        yield from chain.from_iterable(group)


def _groups(blocks: Blocks, *large: Tensor) -> Iterator[list[list[_Piece]]]:
    """The pieces of some images, or else of some blocks of one: for some channels, all pixels."""
    if not _is_cut(*large):
        yield [[_WHOLE]]
        return
    x_n = large[0]
    size, width, (images, channels, pixels) = blocks.size, blocks.width, x_n.shape
    number = channels // (size * width)
    in_row = max(1, values_at_once() // size)
    at_once = max(1, in_row // (width * pixels))
    images_at_once = max(1, at_once // number)
    of_row = _slices(width, max(1, in_row // pixels))
    of_pixels = _slices(pixels, in_row)
    for image in _slices(images, images_at_once):
        for block in _slices(number, at_once):
            yield [[_Piece(image, block, row, p) for p in of_pixels] for row in of_row]


def values_at_once() -> int:
    """Of x, in a piece: more than in one of ``blocked``, for products gain by it."""
    return 2 * blocked.values_at_once()


def _slices(length: int, most: int) -> list[slice]:
    """Almost equal parts of at most so many."""
    parts = -(-length // most)
    ends = [length * part // parts for part in range(parts + 1)]
    return [slice(*pair) for pair in pairwise(ends)]
