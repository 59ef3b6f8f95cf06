"""CARAFE."""

import pytest
import torch

from tests.compat.ops.mmcv_operators import (
    DEVICE,
    assert_all_close,
    ext,
    gradients,
    not_compiled_for_cpu,
    ops,
    ours_only,
    rand,
)

pytestmark = not_compiled_for_cpu


def reference(x, masks, k, groups, scale):
    """The weighted sum of the k x k pixels around each, in loops."""
    n, c, h, w = x.shape
    out = torch.zeros(n, c, h * scale, w * scale, dtype=x.dtype, device=DEVICE)
    for channel, row, column in torch.cartesian_prod(*map(torch.arange, out.shape[1:])).tolist():
        group = channel // (c // groups)
        for tap in range(k * k):
            y, z = row // scale + tap // k - k // 2, column // scale + tap % k - k // 2
            if 0 <= y < h and 0 <= z < w:
                mask = masks[:, group * k * k + tap, row, column]
                out[:, channel, row, column] += x[:, channel, y, z] * mask
    return out


@pytest.mark.parametrize(('k', 'groups', 'scale'), [(1, 1, 2), (3, 2, 2), (5, 1, 1), (3, 4, 3)])
def test_carafe_and_its_gradients_are_the_definition(k, groups, scale, rng):
    x = rand(2, 4, 3, 4, rng=rng).requires_grad_()
    masks = rand(2, k * k * groups, 3 * scale, 4 * scale, rng=rng).requires_grad_()
    got, expected = ops.carafe(x, masks, k, groups, scale), reference(x, masks, k, groups, scale)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    want = gradients(expected, [x, masks])
    assert_all_close(gradients(got, [x, masks]), want, 1e-12)
    # mmcv calls the backward of the naive form on a GPU only.
    torch.testing.assert_close(ops.carafe_naive(x, masks, k, groups, scale), expected)
    naive = [torch.zeros_like(x), torch.zeros_like(masks)]
    upstream = torch.arange(got.numel(), device=DEVICE).view_as(got).sin().to(x.dtype)
    sizes = {'kernel_size': k, 'group_size': groups, 'scale_factor': scale}
    ext.carafe_naive_backward(upstream, x.detach(), masks.detach(), *naive, **sizes)
    assert_all_close(naive, want, 1e-6)  # sin was taken in fp32


def test_the_pack_trains(rng):
    pack = ops.CARAFEPack(4, 2, up_kernel=3, compressed_channels=2).to(DEVICE)
    out = pack(rand(2, 4, 5, 6, rng=rng, dtype=torch.float32))
    assert out.shape == (2, 4, 10, 12)
    out.square().sum().backward()
    assert pack.content_encoder.weight.grad.abs().sum() > 0


@ours_only
def test_half_carafe_is_the_fp32_one_rounded(rng):
    x, masks = rand(1, 2, 3, 3, rng=rng).half(), rand(1, 9, 6, 6, rng=rng).half()
    got = ops.carafe(x, masks, 3, 1, 2)
    assert torch.equal(got, ops.carafe(x.float(), masks.float(), 3, 1, 2).half())
