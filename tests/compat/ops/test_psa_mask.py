"""The attention maps of PSANet."""

import pytest
import torch

from tests.compat.ops.mmcv_operators import DEVICE, assert_all_close, gradients, ops, rand


def reference(mask, size, collect):
    """What pixel (h, w) says of (h + i - half, w + j - half) in loops."""
    n, _, height, width = mask.shape
    maps = torch.zeros(n, height, width, height, width, dtype=mask.dtype, device=DEVICE)
    for h, w, i, j in torch.cartesian_prod(*map(torch.arange, (height, width, *size))).tolist():
        y, x = h + i - (size[0] - 1) // 2, w + j - (size[1] - 1) // 2
        if 0 <= y < height and 0 <= x < width:
            place = (y, x, h, w) if collect else (h, w, y, x)
            maps[(slice(None), *place)] = mask[:, i * size[1] + j, h, w]
    return maps.view(n, height * width, height, width)


@pytest.mark.parametrize('size', [(9, 11), (3, 5), (4, 2)])  # all of the map, less, an even one
@pytest.mark.parametrize('kind', ['collect', 'distribute'])
def test_psa_mask_and_its_gradient_are_the_definition(kind, size, rng):
    mask = rand(2, size[0] * size[1], 5, 6, rng=rng).requires_grad_()
    got = ops.PSAMask(kind, size)(mask)
    expected = reference(mask, size, kind == 'collect')
    assert torch.equal(got, expected)
    assert_all_close(gradients(got, [mask]), gradients(expected, [mask]), 0)
    assert torch.equal(ops.PSAMask(kind, size)(mask.half()), expected.half())
