"""A convolution at some places only."""

import pytest
import torch
import torch.nn.functional as F

from tests.compat.ops.mmcv_operators import DEVICE, not_compiled_for_cpu, ops, rand

pytestmark = not_compiled_for_cpu


@pytest.mark.parametrize(('kernel', 'padding'), [(1, 0), (3, 1), ((3, 5), (1, 2))])
@pytest.mark.parametrize('dtype', [torch.float16, torch.float64])
def test_masked_conv_is_conv2d_at_the_places(kernel, padding, dtype, rng):
    layer = ops.MaskedConv2d(3, 4, kernel, padding=padding).to(DEVICE, dtype)
    x = rand(1, 3, 6, 7, rng=rng).to(dtype)
    mask = rand(1, 6, 7, rng=rng) > 0.6
    with torch.no_grad():
        got = layer(x, mask)
        expected = F.conv2d(x, layer.weight, layer.bias, padding=padding) * mask[:, None]
    tolerance = 1e-12 if dtype == torch.float64 else 2e-3
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerance)
    assert got.abs().sum() > 0


def test_no_places(rng):
    layer = ops.MaskedConv2d(3, 4, 3, padding=1).to(DEVICE)
    x = rand(1, 3, 6, 7, rng=rng, dtype=torch.float32)
    assert layer(x, torch.zeros(1, 6, 7, device=DEVICE)).abs().sum() == 0
