"""mmcv.ops on whatever `mmcv._ext` is here: our operators or a compiled one.

Where somebody has a compiled `_ext`, the tests of this folder run against that instead, unchanged.
"""

import importlib

import pytest
import torch

from normplug.compat import mmcv_ext

pytest.importorskip('mmcv')
torchvision = pytest.importorskip('torchvision')
mmcv_ext.install()
ops = importlib.import_module('mmcv.ops')  # not importorskip: a missing `_ext` is a failure
ext = importlib.import_module('mmcv._ext')

COMPILED = mmcv_ext.compiled_extension() is not None
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
# Sums of some hundred products of numbers of order one, in another order.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}

ours_only = pytest.mark.skipif(COMPILED, reason='mmcv has a compiled _ext')
not_compiled_for_cpu = pytest.mark.skipif(
    COMPILED and DEVICE == 'cpu', reason='compiled mmcv has this operator on the GPU only'
)


def rand(*shape, rng, dtype=torch.float64):
    return torch.rand(*shape, generator=rng, device=DEVICE, dtype=dtype)


def random_boxes(n, rng, size=100.0, dtype=torch.float32):
    start = rand(n, 2, rng=rng, dtype=dtype) * size
    return torch.cat((start, start + rand(n, 2, rng=rng, dtype=dtype) * size / 3), dim=1)


def random_rois(k, batch, rng, size, dtype):
    index = torch.arange(k, device=DEVICE, dtype=dtype)[:, None] % batch
    return torch.cat((index, random_boxes(k, rng, size, dtype)), dim=1)


def gradients(output, inputs):
    """Gradients of a sum in which every element of ``output`` has another weight."""
    weights = torch.arange(output.numel(), device=output.device).view_as(output).sin()
    return torch.autograd.grad((output * weights).sum(), inputs)


def assert_all_close(got, expected, tolerance):
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)
