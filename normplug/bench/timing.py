"""Time steps that take turns, so that whatever slows the machine slows all of them.

torch.utils.benchmark times one statement at a time; a ratio of two such times is as noisy as the
machine between them.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

__all__ = ['Parts', 'Times', 'copy_bandwidth', 'in_turns', 'quantiles', 'seconds_of']

# The first part gets None; every other part gets what the part before it returned.
Parts = Sequence[Callable[[Any], Any]]

_LEAST_ROUNDS, _MOST_ROUNDS = 5, 500
_COPY_BYTES = 2**28  # more than caches hold
_SLEEP_CYCLES = 4_000_000  # about 2 ms of a GPU, within which a layer's kernels are queued


class Times(NamedTuple):
    """Seconds of the parts of one step.

    ``host`` is how long the Python calls of all parts took to return: on a GPU, where they
    only queue work, a bound of its own; None on the CPU, where it is the sum of ``parts``.
    """

    parts: tuple[float, ...]
    host: float | None = None


def in_turns(
    steps: Sequence[Callable[[], Parts]], device: str, seconds: float, queued: bool = True
) -> list[list[Times]]:
    """Time each step once a round, for about ``seconds``; the first goes round among them.

    Args:
        steps: each prepares a step, untimed, and gives its parts.
        device: 'cpu' or 'cuda'.
        seconds: 5 to 500 rounds, as many as fit.
        queued: on a GPU, let the device wait until the host has queued the step, so that times are
            the device's. Else they are those of an idle device, with the host's share.
    """
    watch = _on_cpu if device == 'cpu' else _queued_on_cuda if queued else _on_cuda
    # Also the last of the warm-up.
    spent = seconds_of(lambda: [watch(step()) for step in steps], device)
    rounds = int(min(max(seconds / max(spent, 1e-9), _LEAST_ROUNDS), _MOST_ROUNDS))
    times: list[list[Times]] = [[] for _ in steps]
    gc.collect()
    collects = gc.isenabled()
    gc.disable()
    try:
        for number in range(rounds):
            for turn in range(len(steps)):
                index = (number + turn) % len(steps)
                times[index].append(watch(steps[index]()))
    finally:
        if collects:
            gc.enable()
    return times


def quantiles(values: Sequence[float]) -> tuple[float, float, float]:
    """p20, p50 and p80."""
    return tuple(float(value) for value in np.quantile(values, (0.2, 0.5, 0.8)))


def seconds_of(call: Callable[[], Any], device: str) -> float:
    """How long one call takes, until the device has done it."""
    start = time.perf_counter()
    call()
    if device != 'cpu':
        torch.cuda.synchronize()
    return time.perf_counter() - start


def copy_bandwidth(device: str) -> float:
    """Bytes per second, read and written, of copying what no cache holds: the median of five."""
    source = torch.ones(_COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    (times,) = in_turns([lambda: [lambda _: target.copy_(source)]], device, 0)
    return 2 * _COPY_BYTES / quantiles([t.parts[0] for t in times])[1]


def _on_cpu(parts: Parts) -> Times:
    value, marks = None, [time.perf_counter()]
    for part in parts:
        value = part(value)
        marks.append(time.perf_counter())
    return Times(tuple(b - a for a, b in pairwise(marks)))


def _on_cuda(parts: Parts, sleep: int = 0) -> Times:
    events = [torch.cuda.Event(enable_timing=True) for _ in range(len(parts) + 1)]
    torch.cuda.synchronize()
    if sleep:
        torch.cuda._sleep(sleep)
    start = time.perf_counter()
    value = None
    events[0].record()
    for part, event in zip(parts, events[1:], strict=True):
        value = part(value)
        event.record()
    host = time.perf_counter() - start
    torch.cuda.synchronize()
    return Times(tuple(a.elapsed_time(b) / 1e3 for a, b in pairwise(events)), host)


def _queued_on_cuda(parts: Parts) -> Times:
    return _on_cuda(parts, _SLEEP_CYCLES)
