"""Refuse to measure a layer that computes something other than the reference."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from normplug.errors import NormplugError
from normplug.norms import BaseNorm
from normplug.ops import normalize_naive

from .cases import DTYPES, LAYOUTS, Case
from .contenders import Contender
from .linked import LinkedLayer

__all__ = ['TOLERANCE', 'ParityError', 'check_parity', 'difference', 'reference']

# Largest |error| relative to the size of a tensor's values. float32: roundings of long sums add
# up to some 1e-5. The half types round x-sized results once, by half of their last digit, which
# is 2^-9 (bfloat16) or 2^-12 of the largest.
TOLERANCE = {'float32': 1e-4, 'bfloat16': 2**-8, 'float16': 2**-10}


class ParityError(NormplugError):
    """A layer disagrees with the reference: its times mean nothing."""


def check_parity(contender: Contender, case: Case, training: bool) -> None:
    """Compare a layer with the reference in float64, on the tensors that are measured.

    In training, this compares the output, dx and the gradients of all parameters; in evaluation,
    the output.

    Raises:
        ParityError: it names the contender, the case and the tensor that differs.
    """
    layer = contender.layer.train(training)
    x, dy = case.tensors()
    want = reference(deepcopy(layer).double(), x, dy, training)
    contender.choose_backend()
    y = contender.forward(x)
    got = [y.detach(), *(contender.backward(y, x, dy) if training else ())]
    names = ['the output', 'the gradient of x']
    names += [f'the gradient of {name}' for name, _ in layer.named_parameters()]
    where = f'{contender} on {case} in {"training" if training else "evaluation"}'
    for name, actual, expected in zip(names, got, want, strict=False):
        if actual.shape == x.shape:
            _check_form(f'{where}: {name}', actual, case)
        error, scale = difference(actual, expected, x.numel())
        if not error <= TOLERANCE[case.dtype] * scale:  # NaN fails too
            raise ParityError(
                f'{where}: {name} is off by {error:.1e} where values are about {scale:.1e} '
                f'(allowed: {TOLERANCE[case.dtype]:.0e} of that); nothing is reported'
            )


def reference(layer: nn.Module, x: Tensor, dy: Tensor, training: bool) -> list[Tensor]:
    """Return a layer's output in float64; in training also the gradients of x and parameters."""
    x = x.detach().double().requires_grad_()
    y = layer.reference(x) if isinstance(layer, LinkedLayer) else _naive(layer, x)
    if not training:
        return [y.detach()]
    inputs = (x, *layer.parameters())  # an empty batch uses no prediction
    grads = torch.autograd.grad(y, inputs, dy.double(), materialize_grads=True)
    return [y.detach(), *grads]


def _naive(layer: BaseNorm, x: Tensor) -> Tensor:
    return normalize_naive(x, layer.plan(x), layer.rule_params(), layer.running())


def _check_form(what: str, tensor: Tensor, case: Case) -> None:
    if tensor.dtype != DTYPES[case.dtype]:
        raise ParityError(f'{what} is {tensor.dtype}, its input {case.dtype}; nothing is reported')
    if not tensor.is_contiguous(memory_format=LAYOUTS[case.layout]):
        raise ParityError(f'{what} is not {case.layout}, as its input is; nothing is reported')


def difference(actual: Tensor, expected: Tensor, total: int) -> tuple[float, float]:
    """Return the largest |error| and the size of values: √k or more for a sum of k random terms."""
    error = (actual.double() - expected).abs().max().item()
    return error, max(expected.abs().max().item(), (total / expected.numel()) ** 0.5)
