"""The passes of :mod:`normplug.ops.passes` block by block, for plain torch on a CPU.

Each of its operators would read and write main memory; what a block needs stays in the cache. So
a pass moves as much as one fused kernel does, and takes about as long. What is written is written
where it belongs, in place: fresh memory for each operator would cost page faults.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from normplug.ops import passes
from normplug.ops.memory import is_plain
from normplug.stats import Moments, merge

__all__ = [
    'SMALL',
    'affine',
    'backward_input',
    'backward_reduce',
    'fits',
    'moments',
    'taken',
    'values_at_once',
]

taken = passes.taken
SMALL = 32768  # values; fewer are not worth threads (ATen too starts none)
_PER_THREAD = 2**18  # values: 1 MiB of float32, a usual second-level cache of a core


def fits(x_n: Tensor) -> bool:
    """Whether x is worth a thread's work, and laid out so that blocks are cheap to cut."""
    return (
        is_plain(x_n)
        and x_n.is_cpu
        and x_n.dim() == 3
        and x_n.numel() >= SMALL
        and (x_n.is_contiguous() or x_n.transpose(1, 2).is_contiguous())
    )


def moments(x_n: Tensor, dtype: torch.dtype = torch.float64) -> Moments:
    """As :func:`normplug.ops.passes.moments`."""
    groups = []
    for group in _blocks(x_n):
        parts = [passes.moments(x_b, dtype) for (x_b,) in group]
        groups.append(
            parts[0] if len(parts) == 1 else _merged(parts, [b.shape[2] for (b,) in group])
        )
    return Moments(*(torch.cat(t).reshape(x_n.shape[:2]) for t in zip(*groups, strict=True)))


def affine(
    x_n: Tensor,
    mean_nc: Tensor,
    scale_nc: Tensor,
    offset_nc: Tensor,
    out_n: Tensor | None = None,
) -> Tensor:
    """As :func:`normplug.ops.passes.affine`."""
    y_n = torch.empty_like(x_n) if out_n is None else out_n
    for group in _blocks(x_n, y_n, mean_nc, scale_nc, offset_nc):
        for x_b, y_b, *small in group:
            mean_b, scale_b, offset_b = (t.unsqueeze(2) for t in small)
            work_b = torch.sub(x_b, mean_b, out=_if_as_exact(y_b, mean_b))
            work_b.mul_(scale_b).add_(offset_b)
            if work_b is not y_b:
                y_b.copy_(work_b)
    return y_n


def backward_reduce(dy_n: Tensor, x_n: Tensor, mean_nc: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`normplug.ops.passes.backward_reduce`."""
    groups = []
    for group in _blocks(x_n, dy_n, mean_nc):
        parts = [passes.backward_reduce(dy_b, x_b, mean_b) for x_b, dy_b, mean_b in group]
        groups.append([sum(part) for part in zip(*parts, strict=True)])
    first, second = (torch.cat(t).reshape(x_n.shape[:2]) for t in zip(*groups, strict=True))
    return first, second


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
    for group in _blocks(x_n, dy_n, dx_n, mean_nc, scale_nc, slope_nc, level_nc):
        for x_b, dy_b, dx_b, *small in group:
            mean_b, scale_b, slope_b, level_b = (t.unsqueeze(2) for t in small)
            work_b = torch.mul(dy_b, scale_b, out=_if_as_exact(dx_b, scale_b))
            work_b.add_(torch.sub(x_b, mean_b).mul_(slope_b).add_(level_b))
            if work_b is not dx_b:
                dx_b.copy_(work_b)
    return dx_n


def _blocks(x_n: Tensor, *others: Tensor) -> Iterator[list[tuple[Tensor, ...]]]:
    """Cut all tensors alike, into (n, c, pixels) and (n, c); the blocks of some (n, c) at a time.

    Contiguous planes are cut apart; where channels lie innermost, a block has all of them.
    """
    apart = x_n.is_contiguous()
    tensors = [_apart(t) if apart else t for t in (x_n, *others)]
    channels, pixels = tensors[0].shape[1:]
    at_once = max(1, values_at_once() // (channels * pixels))
    piece = max(1, values_at_once() // channels)
    for group in zip(*(t.split(at_once) for t in tensors), strict=True):
        yield [
            tuple(t[..., start : start + piece] if t.dim() == 3 else t for t in group)
            for start in range(0, pixels, piece)
        ]


def _if_as_exact(result: Tensor, small: Tensor) -> Tensor | None:
    """Where to work: in the result itself, if it is as exact as the work is (``small`` is)."""
    return result if result.dtype == small.dtype else None


def values_at_once() -> int:
    """Of x, for all threads together, that stay in the cache."""
    return _PER_THREAD * torch.get_num_threads()


def _apart(t: Tensor) -> Tensor:
    """(N, C, pixels) as (N·C, 1, pixels), (N, C) as (N·C, 1)."""
    return t.reshape(t.shape[0] * t.shape[1], 1, *t.shape[2:])


def _merged(parts: list[Moments], pixels: list[int]) -> Moments:
    counts = torch.tensor(pixels, dtype=parts[0].mean.dtype)
    flat = Moments(*(torch.stack(t).flatten(1) for t in zip(*parts, strict=True)))
    merged, _ = merge(flat, counts)
    return Moments(*(t.reshape(parts[0].mean.shape) for t in merged))
