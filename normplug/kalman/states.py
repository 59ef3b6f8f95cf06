"""The states that pass between Kalman-normalized layers, as a graph of operations.

A node stands for a tensor of the model. Its value in a forward is the mean and variance of each
channel, as the layers before it estimate them. Leaves are the posteriors of normalizers, set in
each forward; the other nodes are computed on demand, once per forward.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache, partial, reduce
from math import ceil, prod
from operator import add
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from normplug.kalman.composed import Composed
from normplug.kalman.convolution import Conv, convolved, convolved_sample, output_size
from normplug.kalman.elementwise import activated, averaged, largest
from normplug.ops import stepped
from normplug.stats import Moments

__all__ = [
    'Activated',
    'Concatenated',
    'Convolved',
    'MissingStateError',
    'Node',
    'Pooled',
    'Posterior',
    'State',
    'Summed',
    'Window',
]

_ticks = itertools.count()


class MissingStateError(RuntimeError):
    """A layer needs the posterior of one that has not run in this forward."""


class State(NamedTuple):
    """Moments of each channel of a tensor, (C,) or (groups, C) each; the tensor's spatial size."""

    moments: Moments
    size: tuple[int, ...]


class Node:
    """A tensor whose state is known from its ``parts``."""

    def __init__(self, *parts: Node) -> None:
        self.parts = parts
        self._cache: dict[bool, tuple[int, State]] = {}

    def tick(self) -> int:
        """The time at which the newest of its leaves was set."""
        return max(part.tick() for part in self.parts)

    def leaves(self) -> Iterator[Posterior]:
        """Return the posteriors from which the state is computed."""
        for part in self.parts:
            yield from part.leaves()

    def convolutions(self) -> Iterator[Convolved]:
        """Return the convolutions between the leaves and this node, the nearest first."""
        for part in self.parts:
            yield from part.convolutions()

    def state(self, sampled: bool = False) -> State:
        """Return the state in this forward; ``sampled`` computes it as the released code does.

        Raises:
            MissingStateError: a leaf was not set.
        """
        tick = self.tick()
        known = self._cache.get(sampled)
        if known is None or known[0] != tick:
            known = self._cache[sampled] = tick, self._compute(sampled)
        return known[1]

    def _compute(self, sampled: bool) -> State:
        """Compute the state from those of the parts; defined by each kind of node."""
        raise NotImplementedError

    def draw(self, sampled: bool) -> Tensor:
        """Draw a map of independent values for each group, (groups, C, *size)."""
        (mean, var), size = self.state(sampled)
        mean, var = (torch.atleast_2d(t)[(..., *[None] * len(size))] for t in (mean, var))
        noise = torch.randn((*mean.shape[:2], *size), dtype=mean.dtype, device=mean.device)
        return mean + var.clamp(min=1e-30).sqrt() * noise

    def forget(self) -> None:
        """Drop the state of this forward."""
        self._cache.clear()


class Posterior(Node):
    """The estimate of a normalizer for its input, before normalization."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self._set: tuple[int, State] | None = None

    def set(self, state: State) -> None:
        """Set the posterior of this forward."""
        self._set = next(_ticks), state

    def tick(self) -> int:
        """The time at which it was set."""
        return self._known()[0]

    def state(self, sampled: bool = False) -> State:
        """Return the posterior."""
        return self._known()[1]

    def _known(self) -> tuple[int, State]:
        if self._set is None:
            raise MissingStateError(self.name)
        return self._set

    def leaves(self) -> Iterator[Posterior]:
        """Itself."""
        yield self

    def forget(self) -> None:
        """Drop the posterior of this forward."""
        self._set = None


class Activated(Node):
    """After an activation; ReLU in closed form, others by quadrature.

    Args:
        part: before it.
        function: (N, C, *size) → the same, elementwise; may have parameters of each channel.
    """

    def __init__(self, part: Node, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__(part)
        self.function = function

    def _compute(self, sampled: bool) -> State:
        moments, size = self.parts[0].state(sampled)
        of_moments = activated(self.function, len(size))
        if isinstance(self.function, Composed) and self.function.has_tensors():
            return State(of_moments(*moments), size)  # they would be constants of a step
        return State(Moments(*stepped(of_moments, moments)), size)

    def draw(self, sampled: bool) -> Tensor:
        """Draw the map of the part and apply the activation."""
        return self.function(self.parts[0].draw(sampled))


class Window(NamedTuple):
    """The arguments of a pooling, one number an axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool
    counts_padding: bool


class Pooled(Node):
    """After max or average pooling over windows of independent values.

    The maximum is taken before an activation, which is then applied: the two commute if the
    activation is increasing, like ReLU. Windows at the border hold fewer values; overlaps, and the
    variance of the map's own mean, are neglected.
    """

    def __init__(self, part: Node, pool: Callable[..., Tensor], window: Window) -> None:
        super().__init__(part)
        self.pool, self.window = pool, window
        self.is_max = pool in (F.max_pool1d, F.max_pool2d, F.max_pool3d)

    def _compute(self, sampled: bool) -> State:
        below, function = self.parts[0], None
        if self.is_max and isinstance(below, Activated) and below.function is F.relu:
            below, function = below.parts[0], F.relu
        moments, size = below.state(sampled)
        positions, windows = _filled(self.window, size)
        of_moments = partial(largest, function=function)
        if not self.is_max:
            divisor = prod(self.window.kernel) if self.window.counts_padding else None
            of_moments = partial(averaged, divisor=divisor)
        return State(Moments(*stepped(of_moments, moments, windows)), positions)

    def draw(self, sampled: bool) -> Tensor:
        """Draw the map of the part and pool it."""
        window, drawn = self.window, self.parts[0].draw(sampled)
        options = dict(ceil_mode=window.ceil_mode)
        if self.is_max:
            options['dilation'] = window.dilation
        else:
            options['count_include_pad'] = window.counts_padding
        return self.pool(drawn, window.kernel, window.stride, window.padding, **options)


@lru_cache(1024)
def _filled(
    window: Window, size: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """Return the size after pooling, and (values per window, windows), most frequent first."""
    axes = []
    for i, n in enumerate(size):
        kernel, stride, padding, dilation = (part[i] for part in window[:4])
        steps = (n + 2 * padding - dilation * (kernel - 1) - 1) / stride
        last = ceil(steps) if window.ceil_mode else int(steps)
        last -= last * stride >= n + padding  # a window that begins beyond the values is left out
        starts = [p * stride - padding for p in range(last + 1)]
        axes.append([sum(0 <= s + t * dilation < n for t in range(kernel)) for s in starts])
    counts = Counter({1: 1})
    for axis in axes:
        product = Counter()
        for (a, times), (b, more) in itertools.product(counts.items(), Counter(axis).items()):
            product[a * b] += times * more
        counts = product
    return tuple(map(len, axes)), tuple(counts.most_common())


class Summed(Node):
    """The sum of tensors, taken as independent: means and variances add."""

    def _compute(self, sampled: bool) -> State:
        states = [part.state(sampled) for part in self.parts]
        means, variances = zip(*(state.moments for state in states), strict=True)
        return State(Moments(reduce(add, means), reduce(add, variances)), states[0].size)


class Concatenated(Node):
    """The concatenation along the channels."""

    def _compute(self, sampled: bool) -> State:
        states = [part.state(sampled) for part in self.parts]
        moments = zip(*(state.moments for state in states), strict=True)
        return State(Moments(*(torch.cat(t, -1) for t in moments)), states[0].size)


class Convolved(Node):
    """The output of a convolution, whose weights are read in each forward."""

    def __init__(self, part: Node, name: str, conv: Conv) -> None:
        super().__init__(part)
        self.name, self.conv = name, conv

    def convolutions(self) -> Iterator[Convolved]:
        """Itself first."""
        yield self
        yield from super().convolutions()

    def _compute(self, sampled: bool) -> State:
        (mean, var), size = self.parts[0].state(sampled)
        out_size = output_size(self.conv, size)
        if not sampled:
            return State(convolved(self.conv, Moments(mean, var), size), out_size)
        moments = convolved_sample(self.conv, self.parts[0].draw(sampled))
        return State(Moments(*(t if mean.dim() > 1 else t[0] for t in moments)), out_size)
