"""The four passes over the full tensor for blocks of channels: the twin of passes and blocked.

In blocks, x is (N, g, d, k, S): see :class:`normplug.ops.plan.Blocks`. Names that end in ``_p``
are pieces of such tensors. On a CPU a piece, what is centred of it, and the products with it stay
in the cache: a product of d rows with all the pixels waits for memory most of the time.

x is centred before it is multiplied by itself or by anything else, at its mean rounded to the
precision of the products: float32, float64 for float64.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from math import prod
from operator import add

import torch
from torch import Tensor

from normplug.covariance import Covariances, Linear, merge, outer
from normplug.ops import blocked
from normplug.ops.memory import is_plain
from normplug.ops.passes import cast, pixels_of
from normplug.ops.plan import Blocks
from normplug.precision import working_dtype

__all__ = ['affine', 'backward_input', 'backward_reduce', 'centre_of', 'moments']


def centre_of(mean: Tensor, x_n: Tensor) -> Tensor:
    """What the passes subtract, (N, g, d): a constant, as no result depends on it."""
    return mean.detach().to(working_dtype(x_n))


def moments(x_n: Tensor, blocks: Blocks, dtype: torch.dtype) -> Covariances:
    """Mean (N, g, d), as ``dtype``, and biased covariance (N, g, d, d) of every image."""
    if x_n.numel() == 0:  # a sum: autograd's graph is that of all ranks
        mean = _rows(x_n, blocks).sum((3, 4), dtype=dtype)
        return Covariances(mean, outer(mean).to(working_dtype(x_n)))
    found = []
    for group in _pieces(blocks, (x_n,), ()):
        parts = [_moments(x_p, dtype) for x_p, _ in group]
        pixels = [x_p.shape[-1] for x_p, _ in group]
        found.append(parts[0] if len(parts) == 1 else _merged(parts, pixels))
    mean, cov = (_joined(t, x_n) for t in zip(*found, strict=True))
    return Covariances(mean, cov.to(working_dtype(x_n)))


def affine(
    x_n: Tensor, blocks: Blocks, centre: Tensor, by: Linear, out_n: Tensor | None = None
) -> Tensor | None:
    """scale · (matrix · (x − centre)) + offset, in x's dtype, or written to ``out_n``."""
    for group in _pieces(blocks, (x_n,), (centre, *_as_products(by, x_n)), out_n):
        for x_p, out_p, centre_p, matrix_p, scale_p, offset_p in group:
            y_p = matrix_p @ _centred(x_p, centre_p)
            y_n = _scaled(y_p, scale_p, offset_p, x_n, out_p)
    return _result(y_n, out_n)


def backward_reduce(
    dy_n: Tensor, x_n: Tensor, blocks: Blocks, centre: Tensor, by: Linear
) -> Linear:
    """The gradients of matrix, scale and offset in :func:`affine`, in their shapes."""
    found = []
    for group in _pieces(blocks, (x_n, dy_n), (centre, *_as_products(by, x_n))):
        parts = [_products(dy_p, x_p, centre_p) for x_p, dy_p, _, centre_p, *_ in group]
        to_offset, products = (reduce(add, part) for part in zip(*parts, strict=True))
        *_, matrix_p, scale_p, _ = group[0]
        to_matrix = (scale_p.mT.unsqueeze(-1) * products).sum(2)
        to_scale = (matrix_p.unsqueeze(2) * products).sum(-1).mT
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
    small = _as_products((by.matrix.mT, by.scale, slope, level.unsqueeze(-1)), x_n)
    for group in _pieces(blocks, (x_n, dy_n), (centre, *small), out_n):
        for x_p, dy_p, out_p, centre_p, matrix_p, scale_p, slope_p, level_p in group:
            direct = matrix_p @ _as_rows(dy_p * scale_p.unsqueeze(-1))
            dx_p = direct + slope_p @ _centred(x_p, centre_p)
            dx_n = _scaled(dx_p, None, level_p, x_n, out_p)
    return _result(dx_n, out_n)


def _moments(x_p: Tensor, dtype: torch.dtype) -> Covariances:
    centre = x_p.mean((3, 4), dtype=working_dtype(x_p))
    x_c = _centred(x_p, centre)
    rest = x_c.mean(-1)  # what the rounded mean left
    cov = x_c @ x_c.mT / x_c.shape[-1] - outer(rest)
    return Covariances(centre.to(dtype) + rest, cov)


def _products(dy_p: Tensor, x_p: Tensor, centre_p: Tensor) -> tuple[Tensor, Tensor]:
    """Σ dy, (n, g, d, k), and Σ dy · (x − centre)ᵀ of each channel of a row, (n, g, k, d, d)."""
    dy_p = cast(dy_p, centre_p.dtype)
    x_c = _centred(x_p, centre_p).view(dy_p.shape)
    return dy_p.sum(-1), dy_p.transpose(2, 3) @ x_c.permute(0, 1, 3, 4, 2)


def _merged(parts: Sequence[Covariances], pixels: Sequence[int]) -> Covariances:
    """Of pieces of one block, of so many pixels."""
    mean, cov = (torch.cat(t).to(parts[0].mean.dtype) for t in zip(*parts, strict=True))
    whole, _ = merge(Covariances(mean, cov), mean.new_tensor(pixels))
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
        if scale_p is None:
            return torch.add(t_p, level_p, out=out_p)
        return torch.addcmul(level_p, t_p, scale_p.unsqueeze(-1), out=out_p)
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


def _pieces(
    blocks: Blocks,
    large: Sequence[Tensor],
    small: Sequence[Tensor],
    out_n: Tensor | None = None,
) -> Iterator[list[list[Tensor | None]]]:
    """Cut all tensors alike; the pieces of some images, or else of some blocks of one, at a time.

    Where x is traced, empty, or cannot be viewed in rows, the one piece is the whole, and nothing
    is given to write to.

    Args:
        blocks: how x is divided.
        large: of x's size.
        small: (N or 1, g, ...).
        out_n: of x's size.

    Yields:
        The pieces, each of them what was given: large, out_n, small.
    """
    plain = all(is_plain(t) and t.dim() == 3 and t.numel() > 0 for t in large)
    rows = [_rows(t, blocks) for t in large]
    rows.append(_rows(out_n, blocks) if plain and out_n is not None else None)
    if not (plain and large[0].is_cpu):
        yield [[*rows, *small]]
        return
    number, *of_block, pixels = rows[0].shape[1:]
    in_row = max(1, blocked.values_at_once() // prod(of_block))
    at_once = max(1, in_row // pixels)
    images = max(1, at_once // number)
    for image in range(0, len(rows[0]), images):
        for block in range(0, number, at_once):
            own = slice(image, image + images), slice(block, block + at_once)
            rows_p = [t if t is None else t[own] for t in rows]
            small_p = [t[own if t.shape[0] > 1 else (slice(None), own[1])] for t in small]
            yield [
                [*(t if t is None else t[..., start : start + in_row] for t in rows_p), *small_p]
                for start in range(0, pixels, in_row)
            ]
