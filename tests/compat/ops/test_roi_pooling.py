"""RoIAlign and RoIPool."""

import math

import pytest
import torch

from tests.compat.ops.mmcv_operators import (
    DEVICE,
    TOLERANCE,
    assert_all_close,
    gradients,
    not_compiled_for_cpu,
    ops,
    ours_only,
    rand,
    random_rois,
    torchvision,
)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_roi_align_is_torchvision_s(aligned, sampling_ratio, dtype, rng):
    x = rand(2, 3, 13, 17, rng=rng, dtype=dtype).requires_grad_()
    rois = random_rois(9, 2, rng, 40.0, dtype)
    upstream = rand(9, 3, 3, 2, rng=rng, dtype=dtype)
    layer = ops.RoIAlign((3, 2), 0.25, sampling_ratio, aligned=aligned)
    got = layer(x, rois)
    expected = torchvision.ops.roi_align(x, rois, (3, 2), 0.25, sampling_ratio, aligned)
    (got_grad,) = torch.autograd.grad(got, x, upstream)
    (expected_grad,) = torch.autograd.grad(expected, x, upstream)
    tolerance = {'rtol': 0, 'atol': TOLERANCE[dtype]}
    torch.testing.assert_close(got, expected, **tolerance)
    torch.testing.assert_close(got_grad, expected_grad, **tolerance)
    assert got_grad.abs().sum() > 0


@pytest.mark.parametrize('aligned', [True, False])
def test_roi_align_of_a_plane_is_the_plane_at_the_bins(aligned):
    # Bilinear sampling and averaging reproduce f(y, x) = 2x - 3y + 1 at the centre of each bin.
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing='ij')
    plane = (2 * x - 3 * y + 1)[None, None].to(DEVICE)
    roi = torch.tensor([[0, 4.0, 6.0, 20.0, 30.0]], device=DEVICE)
    got = ops.RoIAlign((3, 2), 0.5, 2, aligned=aligned)(plane, roi)[0, 0].cpu()
    shift = 0.5 if aligned else 0.0
    centre_x = 2.0 + 8.0 * (torch.arange(2) + 0.5) / 2 - shift
    centre_y = 3.0 + 12.0 * (torch.arange(3) + 0.5) / 3 - shift
    expected = 2 * centre_x - 3 * centre_y[:, None] + 1
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_roi_align_gradcheck(rng):
    rois = random_rois(3, 2, rng, 8.0, torch.float64)
    x = rand(2, 2, 5, 6, rng=rng).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ops.RoIAlign(2, 0.5)(x, rois), x)


def reference_roi_pool(x, rois, height, width, scale):
    """mmcv's RoIPool by loops: unrounded edges, the end of a box belongs to it."""
    out = x.new_zeros(len(rois), x.size(1), height, width)
    for k, (n, *box) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = box[0] * scale, box[1] * scale, (box[2] + 1) * scale, (box[3] + 1) * scale
        bin_w, bin_h = (x2 - x1) / width, (y2 - y1) / height
        for i in range(height):
            for j in range(width):
                top, left = math.floor(i * bin_h + y1), math.floor(j * bin_w + x1)
                bottom, right = math.ceil((i + 1) * bin_h + y1), math.ceil((j + 1) * bin_w + x1)
                patch = x[int(n), :, top:bottom, left:right].flatten(1)
                if patch.size(1):
                    out[k, :, i, j] = patch.amax(1)
    return out


@not_compiled_for_cpu
@pytest.mark.parametrize('scale', [1.0, 0.25])
def test_roi_pool_is_mmcv_s_definition(scale, rng):
    x = rand(2, 3, 13, 17, rng=rng).requires_grad_()
    rois = random_rois(12, 2, rng, 14.0 / scale, torch.float64)
    upstream = rand(12, 3, 3, 2, rng=rng)
    got = ops.RoIPool((3, 2), scale)(x, rois)
    expected = reference_roi_pool(x, rois, 3, 2, scale)
    assert torch.equal(got, expected)
    (got_grad,) = torch.autograd.grad(got, x, upstream)
    (expected_grad,) = torch.autograd.grad(expected, x, upstream)
    torch.testing.assert_close(got_grad, expected_grad, rtol=0, atol=1e-12)
    assert got_grad.abs().sum() > 0


@not_compiled_for_cpu
def test_roi_pool_on_whole_pixels_is_torchvision_s(rng):
    x = rand(2, 3, 13, 17, rng=rng, dtype=torch.float32)
    rois = random_rois(9, 2, rng, 12.0, torch.float32).floor()
    expected = torchvision.ops.roi_pool(x, rois, (3, 2), 1.0)
    assert torch.equal(ops.RoIPool((3, 2), 1.0)(x, rois), expected)


@not_compiled_for_cpu
def test_roi_pool_outside_the_image_is_zero_without_gradient(rng):
    x = rand(1, 2, 5, 5, rng=rng).requires_grad_()
    roi = torch.tensor([[0, 50.0, 50.0, 60.0, 60.0]], dtype=x.dtype, device=DEVICE)
    out = ops.RoIPool(2, 1.0)(x, roi)
    out.sum().backward()
    assert out.abs().sum() == 0
    assert x.grad.abs().sum() == 0


@pytest.mark.parametrize(
    'layer',
    [
        ops.RoIAlign(2),
        ops.RoIAlign(2, pool_mode='max'),
        pytest.param(ops.RoIPool(2), marks=not_compiled_for_cpu),
        pytest.param(ops.DeformRoIPool(2), marks=not_compiled_for_cpu),
    ],
)
def test_no_rois_give_no_features_and_a_zero_gradient(layer, rng):
    x = rand(2, 3, 5, 5, rng=rng, dtype=torch.float32).requires_grad_()
    out = layer(x, torch.zeros(0, 5, device=DEVICE))
    assert out.shape == (0, 3, 2, 2)
    out.sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


@ours_only
@pytest.mark.parametrize(
    'layer', [ops.RoIAlign(2, 0.5), ops.RoIPool(2, 0.5), ops.DeformRoIPool(2, 0.5)]
)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_rois_are_pooled_in_fp32_and_rounded_once(layer, dtype, rng):
    x = rand(2, 3, 9, 9, rng=rng).to(dtype).requires_grad_()
    rois = random_rois(4, 2, rng, 10.0, torch.float64).to(dtype)
    got, expected = layer(x, rois), layer(x.float(), rois.float())
    assert got.dtype == dtype
    assert torch.equal(got, expected.to(dtype))
    upstream = rand(*got.shape, rng=rng).to(dtype)
    (got_grad,) = torch.autograd.grad(got, x, upstream)
    (expected_grad,) = torch.autograd.grad(expected, x, upstream.float())
    assert torch.equal(got_grad, expected_grad)


def bilinear(image, y, x):
    """mmcv's sample of ``image`` (C, H, W): the border within a pixel of it, 0 beyond."""
    height, width = image.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return torch.zeros_like(image[:, 0, 0])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = image[:, top, left] * (left + 1 - x) + image[:, top, right] * (x - left)
    lower = image[:, bottom, left] * (left + 1 - x) + image[:, bottom, right] * (x - left)
    return upper * (top + 1 - y) + lower * (y - top)


def reference_samples(x, rois, size, scale, ratio, aligned, offset=None, gamma=0.1):
    """The list of samples in each bin: {(roi, row, column): [(C,), ...]}."""
    samples, shift = {}, 0.5 if aligned else 0
    for k, (n, *box) in enumerate(rois.tolist()):
        left, top, right, bottom = (edge * scale - shift for edge in box)
        w, h = right - left, bottom - top
        if not aligned:
            w, h = max(w, 1), max(h, 1)
        bin_h, bin_w = h / size[0], w / size[1]
        rows, columns = ratio or math.ceil(bin_h), ratio or math.ceil(bin_w)
        for i in range(size[0]):
            for j in range(size[1]):
                dx, dy = (0, 0) if offset is None else offset[k, :, i, j] * x.new_tensor([w, h])
                samples[k, i, j] = [
                    bilinear(
                        x[int(n)],
                        float(top + gamma * dy + (i + (row + 0.5) / rows) * bin_h),
                        float(left + gamma * dx + (j + (column + 0.5) / columns) * bin_w),
                    )
                    for row in range(rows)
                    for column in range(columns)
                ]
    return samples


def reduced(samples, k, channels, size, reduce, blank=0.0):
    out = torch.full((k, channels, *size), blank, dtype=torch.float64, device=DEVICE)
    for place, values in samples.items():
        if values:
            out[place[0], :, place[1], place[2]] = reduce(torch.stack(values))
    return out


LOWEST = torch.finfo(torch.float32).min  # of a bin without samples


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
def test_roi_align_max_is_the_largest_sample(aligned, ratio, rng):
    x = (rand(2, 3, 7, 9, rng=rng) - 0.5).requires_grad_()
    rois = random_rois(8, 2, rng, 14.0, torch.float64) - rand(8, 5, rng=rng).mul(3).floor()
    rois[:, 0] = torch.arange(8) % 2
    got = ops.RoIAlign((3, 2), 0.5, ratio, pool_mode='max', aligned=aligned)(x, rois)
    samples = reference_samples(x, rois, (3, 2), 0.5, ratio, aligned)
    expected = reduced(samples, 8, 3, (3, 2), lambda values: values.amax(0), LOWEST)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    assert_all_close(gradients(got, [x]), gradients(expected, [x]), 1e-12)


@not_compiled_for_cpu
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('moved', [True, False])
def test_deform_roi_pool_is_the_mean_of_moved_samples(moved, ratio, rng):
    x = rand(2, 3, 7, 9, rng=rng).requires_grad_()
    rois = random_rois(8, 2, rng, 12.0, torch.float64)
    rois[3, 3:] = rois[3, 1:3]  # no area, no samples of its own
    offset = 8 * rand(8, 2, 3, 2, rng=rng) - 4 if moved else None
    got = ops.DeformRoIPool((3, 2), 0.75, ratio)(x, rois, offset)
    samples = reference_samples(x, rois, (3, 2), 0.75, ratio, True, offset)
    expected = reduced(samples, 8, 3, (3, 2), lambda values: values.mean(0))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    assert_all_close(gradients(got, [x]), gradients(expected, [x]), 1e-12)


@not_compiled_for_cpu
def test_deform_roi_pool_gradcheck(rng):
    # Inside of the image, where mmcv's slope of an offset is the derivative.
    x = rand(1, 2, 12, 12, rng=rng).requires_grad_()
    rois = x.new_tensor([[0, 3.0, 3.2, 9.1, 8.7], [0, 2.5, 4.0, 8.0, 9.0]])
    offset = (rand(2, 2, 2, 2, rng=rng) - 0.5).requires_grad_()
    run = ops.DeformRoIPool(2, 1.0, 2)
    assert torch.autograd.gradcheck(lambda x, offset: run(x, rois, offset), (x, offset))


@not_compiled_for_cpu
def test_deform_roi_pool_packs_train(rng):
    for pack in (ops.DeformRoIPoolPack, ops.ModulatedDeformRoIPoolPack):
        layer = pack((2, 2), 3, deform_fc_channels=4, spatial_scale=0.5).to(DEVICE)
        rois = random_rois(3, 2, rng, 12.0, torch.float32)
        layer(rand(2, 3, 8, 8, rng=rng, dtype=torch.float32), rois).sum().backward()
        assert layer.offset_fc[-1].bias.grad.abs().sum() > 0


@ours_only
@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('column', [1, 4])
def test_rois_that_are_not_finite_give_nan(value, column, rng):
    # torchvision's kernels would end the process.
    x = rand(2, 3, 13, 17, rng=rng).requires_grad_()
    rois = random_rois(5, 2, rng, 12.0, x.dtype)
    pools = [ops.RoIAlign(3, 1.0, n, mode) for n in (0, 2) for mode in ('avg', 'max')]
    pools += [ops.RoIPool(3, 1.0), ops.DeformRoIPool(3, 1.0, 2)]
    for pool in pools:
        expected = pool(x, rois).detach()
        expected[3] = math.nan
        spoiled = rois.clone()
        spoiled[3, column] = value
        got = pool(x, spoiled)
        torch.testing.assert_close(got, expected, equal_nan=True)
        (grad,) = torch.autograd.grad(got[:3].sum() + got[4:].sum(), x)
        assert grad.isfinite().all()


@ours_only
def test_deform_roi_pool_of_nan_offsets_gives_nan(rng):
    x = rand(1, 3, 13, 17, rng=rng).requires_grad_()
    rois = random_rois(2, 1, rng, 12.0, x.dtype)
    offset = rand(2, 2, 3, 3, rng=rng)
    offset[1, 0, 0, 0] = math.nan
    got = ops.deform_roi_pool(x, rois, offset.requires_grad_(), (3, 3))
    assert got[0].isfinite().all()
    assert got[1].isnan().all()
    got.sum().backward()
