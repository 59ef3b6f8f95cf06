"""Compare a layer on the device with float64 on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from normplug.bench.cases import Case
from normplug.bench.contenders import Contender
from normplug.bench.linked import LinkedLayer
from normplug.bench.linked_kn import LinkedKN
from normplug.bench.parity import TOLERANCE, difference, reference
from normplug.covariance import inverse_root
from normplug.norms import BaseNorm
from normplug.norms.whitening import WhiteningNorm
from normplug.register import NORMS
from normplug.stats import Moments

from .checks import FailedError

__all__ = ['LOCAL', 'Outcome', 'compare', 'expected', 'layer_of', 'norm_of', 'run', 'tensors_of']

# In one process a type that synchronizes runs the code of the type that does not.
LOCAL = [name for name, norm in NORMS.items() if not norm.synchronized]

# Largest |error| of running statistics relative to their largest value. They are float32, from
# sums of parts (KN's are float64): some roundings of 2^-24, in any dtype of x.
RUNNING_TOLERANCE = 1e-5


class Outcome(NamedTuple):
    """The results of a layer, by name.

    Attributes:
        tensors: the output and the gradients.
        running: the running statistics.
        cancelled: where float64's dx is 0 but for roundings, the size of the terms that cancel.
    """

    tensors: dict[str, Tensor]
    running: dict[str, Tensor]
    cancelled: float = 0.0


def norm_of(layer: nn.Module) -> BaseNorm:
    """Return the normalizer; for a KN or CBN, the one behind its link."""
    return layer.norm if isinstance(layer, LinkedLayer) else layer


def expected(layer: nn.Module, x: Tensor, dy: Tensor, training: bool) -> Outcome:
    """Differentiate the rule step by step in float64, and move the running statistics."""
    twin = deepcopy(layer).double().cpu().train(training)
    x, dy = (t.detach().cpu().double() for t in (x, dy))
    names = ['the output', 'the gradient of x']
    names += [f'the gradient of {name}' for name, _ in twin.named_parameters()]
    tensors = dict(zip(names, reference(twin, x, dy, training), strict=False))
    cancelled = 0.0
    if x.numel() == x.shape[1]:  # one value per channel: y is β, and dx = γ/√eps (dy − dy)
        norm = norm_of(twin)
        cancelled = (norm.weight.abs().max() * dy.abs().max() / norm.eps**0.5).item()
    return Outcome(tensors, _running(twin, x), cancelled)


def _running(layer: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Update as ``nn.BatchNorm`` does; KN uses the filtered moments."""
    norm = norm_of(layer)
    if norm.batch_from is None:
        return {}
    mean, spread, batches = norm.running()
    count = x.numel() // max(x.shape[1], 1)
    how = norm.tracking(x)
    if norm.takes_batch_statistics(x) and count > (0 if how.pooled else 1):
        axes = (0, *range(2, x.dim()))
        own = x[:, norm.batch_from :]
        if isinstance(layer, LinkedKN):
            new = layer.moments(x)
        elif isinstance(norm, WhiteningNorm):
            new = own.mean(axes), _matrices(norm, own)
        else:
            new = own.mean(axes), own.var(axes, correction=0)
        plan = norm.plan(x)
        filtered = plan.filter is not None and not isinstance(layer, LinkedKN)
        if filtered:
            new = plan.filter(Moments(*new), *norm.rule_params()[-plan.filter_inputs :])
        if not norm.centred:
            new = torch.zeros_like(new[1]), new[1]
        batches = batches + 1
        biased = isinstance(norm, WhiteningNorm) or how.pooled or filtered
        new_spread = new[1] if biased else new[1] * count / (count - 1)
        step = how.step(batches)
        if how.pooled:
            new_spread = new_spread + (1 - step) * (new[0] - mean).square()
        mean = mean + step * (new[0] - mean)
        spread = spread + step * (new_spread - spread)
    return dict(zip(_names(norm), (mean, spread, batches), strict=True))


def _names(norm: BaseNorm) -> tuple[str, str, str]:
    spread = norm.matrix_name if isinstance(norm, WhiteningNorm) else 'running_var'
    return 'running_mean', spread, 'num_batches_tracked'


def _matrices(norm: WhiteningNorm, x: Tensor) -> Tensor:
    """The covariances of the batch, or their roots."""
    blocks = x.transpose(0, 1).reshape(-1, norm.size, x.numel() // x.shape[1])
    cov = torch.stack([torch.cov(block, correction=0).view(norm.size, -1) for block in blocks])
    return inverse_root(cov, norm.eps, norm.T) if norm.averages_roots else cov


def run(
    layer: nn.Module,
    x: Tensor,
    dy: Tensor,
    training: bool,
    call: Callable[[Tensor], Tensor] | None = None,
    by_backward: bool = False,
) -> Outcome:
    """Return the results of the layer on its device.

    Args:
        layer: with its parameters; of a model, its first normalizer tells the statistics.
        x: the input.
        dy: the upstream gradient.
        training: the mode; gradients are taken in training only.
        call: what computes y, if it is not the layer itself.
        by_backward: gradients by ``Tensor.backward``, not by ``torch.autograd.grad``.
    """
    layer.train(training)
    x = x.detach().requires_grad_()
    y = (call or layer)(x)
    tensors = {'the output': y.detach()}
    if training:
        names, parameters = zip(*layer.named_parameters(), strict=True)
        if by_backward:
            layer.zero_grad()
            y.backward(dy)
            grads = [x.grad, *(parameter.grad for parameter in parameters)]
        else:
            grads = torch.autograd.grad(y, (x, *parameters), dy, materialize_grads=True)
        labels = ['the gradient of x', *(f'the gradient of {name}' for name in names)]
        tensors |= dict(zip(labels, grads, strict=True))
    norm = norm_of(layer[0] if isinstance(layer, nn.Sequential) else layer)
    if norm.batch_from is None:
        return Outcome(tensors, {})
    values = (value.clone() for value in norm.running())
    return Outcome(tensors, dict(zip(_names(norm), values, strict=True)))


def compare(got: Outcome, want: Outcome, x: Tensor, dtype: str) -> float:
    """Return the largest error, as a fraction of the allowed one.

    Args:
        got: of the device.
        want: of float64 on the CPU.
        x: the input.
        dtype: of x, a key of ``normplug.bench.parity.TOLERANCE``.

    Raises:
        FailedError: naming each tensor that differs, or has another dtype or layout than x.
    """
    shares, wrong = [0.0], []
    for name, value in want.tensors.items():
        actual = got.tensors[name]
        if value.shape == x.shape:
            wrong += _wrong_form(name, actual, x)
        # What has not x's size is rounded to float32 only, whatever x is.
        tolerance = TOLERANCE[dtype if value.shape == x.shape else 'float32']
        least = want.cancelled if name == 'the gradient of x' else 0.0
        shares.append(_share(name, actual, value, tolerance, x.numel(), wrong, least))
    for name, value in want.running.items():
        total = value.numel()  # no sum of random terms to allow for
        shares.append(_share(name, got.running[name], value, RUNNING_TOLERANCE, total, wrong))
    if wrong:
        raise FailedError('; '.join(wrong))
    return max(shares)


def _share(
    name: str,
    actual: Tensor,
    want: Tensor,
    tolerance: float,
    total: int,
    wrong: list[str],
    least: float = 0.0,
) -> float:
    if want.numel() == 0:
        return 0.0
    error, scale = difference(actual.detach().cpu(), want.cpu().double(), total)
    scale = max(scale, least)
    if not error <= tolerance * scale:  # NaN fails too
        wrong.append(
            f'{name} is off by {error:.1e} where values are about {scale:.1e} '
            f'(allowed: {tolerance:.0e} of that)'
        )
    return error / (tolerance * scale) if scale else 0.0  # of an empty batch all is 0, exactly


def _wrong_form(name: str, actual: Tensor, x: Tensor) -> list[str]:
    if actual.dtype != x.dtype:
        return [f'{name} is {actual.dtype}, its input {x.dtype}']
    for layout in (torch.contiguous_format, torch.channels_last):
        if x.is_contiguous(memory_format=layout):
            if not actual.is_contiguous(memory_format=layout):
                return [f'{name} is not {layout}, as its input is']
            break
    return []


def tensors_of(shape: tuple[int, ...], dtype: str, layout: str, device: str) -> list[Tensor]:
    """x and dy of a benchmark's case, without autograd."""
    return [t.detach() for t in Case('', shape, dtype, layout, device).tensors()]


def layer_of(name: str, channels: int, backend: str, device: str) -> nn.Module:
    """A layer with random parameters; its backend is chosen."""
    contender = Contender(name, channels, backend, device)
    contender.choose_backend()
    return contender.layer
