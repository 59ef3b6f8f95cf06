"""How often a network on images of changing size compiles."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from normplug.register import NORMS

from .cases import Case
from .compilation import compilations, forget_compiled, ran_by
from .contenders import Contender, contenders
from .timing import quantiles, seconds_of

__all__ = ['count_compilations']

# Channels and strides of ResNet-50's stages, and of a norm on the image itself.
_LAYERS = {3: 8, 64: 4, 256: 8, 512: 16, 2048: 32}
_SIDES = (200, 800)  # shortest and longest, in pixels; any number, divisible or not


def count_compilations(
    sizes: int,
    norms: Sequence[str],
    backends: Sequence[str],
    dtype: str,
    layout: str,
    device: str,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Train five layers on ``sizes`` random image sizes: a row for each norm and backend.

    Returns:
        Rows with the compilations, of all layers together, at the first size and in total, the
        number of the last size that compiled,
        and the seconds that a size took: the slowest and the median.
    """
    rows = []
    for name in [name for name in norms if name in NORMS]:
        for backend in backends:
            say(f'{name} ({backend}): {sizes} random sizes')
            forget_compiled()
            counts, seconds = _train(sizes, name, backend, dtype, layout, device)
            rows.append(
                {
                    'norm': name,
                    'backend': ran_by(backend, counts[-1]),
                    'dtype': dtype,
                    'layout': layout,
                    'layers': len(_LAYERS),
                    'sizes': sizes,
                    'compilations_first_size': counts[0],
                    'compilations': counts[-1],
                    'last_compiling_size': counts.index(counts[-1]) + 1 if counts[-1] else 0,
                    'slowest_size_s': max(seconds),
                    'median_size_s': quantiles(seconds)[1],
                }
            )
    return rows


def _train(
    sizes: int, name: str, backend: str, dtype: str, layout: str, device: str
) -> tuple[list[int], list[float]]:
    """Compilations so far and seconds, after and of each size."""
    layers = [(*contenders([name], [backend], c, device), c, s) for c, s in _LAYERS.items()]
    draw = random.Random(0)
    start = compilations()
    counts, seconds = [], []
    for _ in range(sizes):
        height, width = draw.randint(*_SIDES), draw.randint(*_SIDES)
        taken = 0.0
        for contender, channels, stride in layers:
            shape = (2, channels, -(-height // stride), -(-width // stride))
            tensors = Case('', shape, dtype, layout, device).tensors()
            contender.choose_backend()
            taken += seconds_of(partial(_train_once, contender, *tensors), device)
        seconds.append(taken)
        counts.append(compilations() - start)
    return counts, seconds


def _train_once(contender: Contender, x: Tensor, dy: Tensor) -> None:
    contender.backward(contender.forward(x), x, dy)
