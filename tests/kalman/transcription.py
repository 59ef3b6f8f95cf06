"""Kalman Normalization in numpy, float64: the slides' recursion, by brute force.

Nothing of the package is used. A convolution is an explicit matrix over the values of a map, of
which mean and expected variance follow by linear algebra; a maximum is integrated on a fine grid.
"""

from collections.abc import Callable
from itertools import product
from math import erfc, pi, prod, sqrt
from typing import NamedTuple

import numpy as np

MODES = {'zeros': 'constant', 'reflect': 'reflect', 'replicate': 'edge', 'circular': 'wrap'}
Pair = tuple[np.ndarray, np.ndarray]


class State(NamedTuple):
    """Mean and variance of each channel; what they were before a ReLU; where they are from.

    ``sources`` are the posteriors below by name; ``draw`` makes a map (C, *size) of its noise.
    """

    moments: Pair
    before: Pair | None
    sources: dict[str, Pair]
    draw: Callable


def values_seen(n, kernel, stride, dilation, pads, mode):
    """(positions, kernel): which of n values each tap sees, −1 where it is a padded zero."""
    options = {'constant_values': -1} if mode == 'constant' else {}
    padded = np.pad(np.arange(n), pads, mode=mode, **options)
    reach = dilation * (kernel - 1)
    starts = range(0, len(padded) - reach, stride)
    return np.array([padded[s : s + reach + 1 : dilation] for s in starts])


def conv_matrix(weight, size, conv):
    """(C_out, positions, C_in · pixels), so that the output is this times the input's values."""
    c_out, per_group, *kernel = weight.shape
    groups, pixels = conv['groups'], prod(size)
    axes = []
    for i, n in enumerate(size):
        pads = conv['padding'] if isinstance(conv['padding'], str) else [conv['padding'][i]] * 2
        if pads == 'valid':
            pads = [0, 0]
        elif pads == 'same':
            total = conv['dilation'][i] * (kernel[i] - 1)
            pads = [total // 2, total - total // 2]
        mode = MODES[conv['padding_mode']]
        axes.append(values_seen(n, kernel[i], conv['stride'][i], conv['dilation'][i], pads, mode))
    out_size = tuple(len(axis) for axis in axes)
    matrix = np.zeros((c_out, prod(out_size), per_group * groups, pixels))
    for p, position in enumerate(product(*map(range, out_size))):
        for tap in product(*map(range, kernel)):
            at = [axis[i, t] for axis, i, t in zip(axes, position, tap, strict=True)]
            if min(at) < 0:
                continue
            pixel = np.ravel_multi_index(at, size)
            for o in range(c_out):
                first = o // (c_out // groups) * per_group
                matrix[o, p, first : first + per_group, pixel] += weight[(o, slice(None), *tap)]
    return matrix.reshape(c_out, prod(out_size), -1), out_size


def expected(matrix, bias, moments):
    """Mean, and expectation of the biased variance, of the map of each output channel."""
    pixels = matrix.shape[-1] // len(moments[0])
    m, v = (np.repeat(t, pixels) for t in moments)
    means = matrix @ m
    centred = matrix - matrix.mean(1, keepdims=True)
    # E (1/P) Σ_p (y_p − ȳ)²: the square of its mean, plus the variance of it.
    var = means.var(1) + (centred**2 @ v).mean(1)
    return means.mean(1) + (0 if bias is None else bias), var


def cdf(z):
    return 0.5 * np.vectorize(erfc)(-z / sqrt(2))


def rectified(moments):
    m, v = moments
    s = np.sqrt(v.clip(1e-300))  # of a constant, its sign tells
    z = m / s
    phi = np.exp(-(z**2) / 2) / sqrt(2 * pi)
    mean = m * cdf(z) + s * phi
    return mean, (m**2 + v) * cdf(z) + m * s * phi - mean**2


def largest(moments, window, function=lambda x: x, points=20001):
    """Moments of f(the largest of ``window`` normal values), by Simpson's rule."""
    z = np.linspace(-9, 9, points)
    simpson = np.where(np.arange(points) % 2, 4.0, 2.0)
    simpson[[0, -1]] = 1
    weight = simpson * np.exp(-(z**2) / 2) * cdf(z) ** (window - 1)
    weight /= weight.sum()
    m, v = (t[:, None] for t in moments)
    value = function(m + np.sqrt(v) * z)
    mean = value @ weight
    return mean, (value - mean[:, None]) ** 2 @ weight


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gaussian(moments, noise, size):
    m, v = (t[:, None] for t in moments)
    return (m + np.sqrt(v) * noise((len(m), *size)).reshape(len(m), -1)).reshape(-1, *size)


class Net:
    """A chain of ``items`` (see ``networks.py``) on one group of images, in training mode.

    Args:
        items: the layers.
        params: by their names in the torch model.
        noise: of a shape, standard normal; with transition='sample'.
        how: the options of the norms.
    """

    def __init__(self, items, params, noise=None, **how):
        self.items, self.params, self.noise = items, params, noise
        self.how = dict(gain=0.9, limit=100.0, transition='conv', state='posterior', eps=1e-5) | how
        self.found, self.guarded = {}, []

    def __call__(self, x):
        return self._run(self.items, x, None, '')[0]

    def _run(self, items, x, state, prefix):
        for i, (kind, *args) in enumerate(items):
            x, state = getattr(self, f'_{kind}')(x, state, f'{prefix}{i}', *args)
        return x, state

    def _residual(self, x, state, name, items):
        y, other = self._run(items, x, state, f'{name}.body.')
        if state is None:
            return x + y, None
        moments = tuple(a + b for a, b in zip(state.moments, other.moments, strict=True))
        draw = lambda size: gaussian(moments, self.noise, size)  # noqa: E731
        return x + y, State(moments, None, state.sources | other.sources, draw)

    def _relu(self, x, state, name):
        if state is not None:
            before = state.draw
            draw = lambda size: before(size).clip(0)  # noqa: E731
            state = State(rectified(state.moments), state.moments, state.sources, draw)
        return x.clip(0), state

    def _pool(self, x, state, name, k):
        n, c, h, w = x.shape
        y = x.reshape(n, c, h // k, k, w // k, k).max((3, 5))
        if state is not None:
            relu = state.before is not None
            below = state.before if relu else state.moments
            moments = largest(below, k * k, (lambda t: t.clip(0)) if relu else lambda t: t)
            state = State(moments, None, state.sources, None)
        return y, state

    def _conv(self, x, state, name, conv):
        weight, bias = self.params[f'{name}.weight'], self.params.get(f'{name}.bias')
        matrix, size = conv_matrix(weight, x.shape[2:], conv)
        y = np.einsum('opi,ni->nop', matrix, x.reshape(len(x), -1))
        y = y if bias is None else y + bias[:, None]
        if state is not None and self.how['transition'] == 'sample':
            drawn = matrix @ state.draw(x.shape[2:]).reshape(-1)
            shift = 0 if bias is None else bias
            moments = drawn.mean(1) + shift, drawn.var(1)
            state = State(moments, None, state.sources, None)
        elif state is not None:
            state = State(expected(matrix, bias, state.moments), None, state.sources, None)
        return y.reshape(len(x), -1, *size), state

    def _norm(self, x, state, name, channels):
        own = {k: self.params[f'{name}.{k}'] for k in ('weight', 'bias')}
        z, c = x.mean((0, 2, 3)), x.var((0, 2, 3))
        mean, var = z, c
        if state is not None:
            m, v = self._predicted(state, name, channels)
            q = self.how['gain']
            q = sigmoid(self.params[f'{name}.gain_logit']) if q == 'learned' else q
            with np.errstate(divide='ignore'):
                ratio = (v / c).mean()
            guarded = ratio >= self.how['limit'] and self.how['limit'] < np.inf
            self.guarded.append(guarded)
            if not guarded:
                mean = m + q * (z - m)
                var = v + q * (c - v) + (1 - q) * q * (z - m) ** 2
        self.found[name] = mean, var
        shape = (-1, 1, 1)
        y = (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + self.how['eps'])
        y = own['weight'].reshape(shape) * y + own['bias'].reshape(shape)
        left = mean, var
        if self.how['state'] == 'affine':
            left = own['bias'], own['weight'] ** 2
        return y, State(left, None, {name: left}, lambda size: gaussian(left, self.noise, size))

    def _predicted(self, state, name, channels):
        m, v = state.moments
        if self.how['transition'] != 'linear':
            return m, v
        if len(state.sources) == 1:
            (source,) = state.sources.values()
            if len(source[0]) == channels:
                m, v = source
        e, noise = (self.params[f'{name}.transition_{k}'] for k in ('weight', 'noise'))
        return e * m, e**2 * v + np.log1p(np.exp(noise))
