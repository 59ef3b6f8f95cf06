"""Deformable convolutions, v1 and v2."""

import pytest
import torch
import torch.nn.functional as F

from tests.compat.ops.mmcv_operators import (
    DEVICE,
    assert_all_close,
    gradients,
    ops,
    ours_only,
    rand,
)

GEOMETRIES = [
    {'kernel_size': 3, 'padding': 1},
    {'kernel_size': (3, 2), 'stride': (2, 1), 'padding': (1, 2), 'dilation': (1, 2)},
    {'kernel_size': 3, 'padding': 1, 'groups': 2, 'deform_groups': 2},
    {'kernel_size': 1, 'groups': 4},
]


def output_and_offset(layer, x, rng, zero):
    conv = {k: getattr(layer, k) for k in ('stride', 'padding', 'dilation', 'groups')}
    out = F.conv2d(x, layer.weight, getattr(layer, 'bias', None), **conv)
    points = layer.kernel_size[0] * layer.kernel_size[1] * layer.deform_groups
    shape = (x.size(0), points, *out.shape[2:])
    if zero:
        return out, x.new_zeros(shape[0], 2 * points, *shape[2:]), x.new_ones(shape)
    # Away from whole pixels, where bilinear sampling has no derivative.
    offset = 0.2 + 0.6 * rand(shape[0], 2 * points, *shape[2:], rng=rng)
    return out, offset, rand(*shape, rng=rng)


@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_deform_conv_without_offset_is_conv2d(geometry, rng):
    x = rand(2, 4, 6, 7, rng=rng).requires_grad_()
    plain = ops.DeformConv2d(4, 8, **geometry).to(x)
    modulated = ops.ModulatedDeformConv2d(4, 8, **geometry).to(x)
    torch.nn.init.normal_(modulated.bias)
    for layer in (plain, modulated):
        expected, offset, mask = output_and_offset(layer, x, rng, zero=True)
        got = layer(x, offset, mask) if layer is modulated else layer(x, offset)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
        upstream = rand(*got.shape, rng=rng)
        inputs = (x, *layer.parameters())
        got_grads = torch.autograd.grad(got, inputs, upstream)
        for got_grad, grad in zip(
            got_grads, torch.autograd.grad(expected, inputs, upstream), strict=True
        ):
            torch.testing.assert_close(got_grad, grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_deform_conv_gradcheck(geometry, rng):
    x = rand(1, 4, 3, 4, rng=rng)
    layer = ops.DeformConv2d(4, 4, **geometry).to(x)
    _, offset, _ = output_and_offset(layer, x, rng, zero=False)

    def run(x, offset, weight):
        return ops.deform_conv2d(
            x, offset, weight, layer.stride, layer.padding, layer.dilation, layer.groups,
            layer.deform_groups,
        )  # fmt: skip

    inputs = [t.detach().requires_grad_() for t in (x, offset, layer.weight)]
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize('geometry', GEOMETRIES)
@pytest.mark.parametrize('bias', [True, False])
def test_modulated_deform_conv_gradcheck(geometry, bias, rng):
    x = rand(1, 4, 3, 4, rng=rng)
    layer = ops.ModulatedDeformConv2d(4, 4, bias=bias, **geometry).to(x)
    _, offset, mask = output_and_offset(layer, x, rng, zero=False)

    def run(x, offset, mask, weight, *bias):
        return ops.modulated_deform_conv2d(
            x, offset, mask, weight, *(bias or [None]), layer.stride, layer.padding,
            layer.dilation, layer.groups, layer.deform_groups,
        )  # fmt: skip

    inputs = [t.detach().requires_grad_() for t in (x, offset, mask, *layer.parameters())]
    assert len(inputs) == 4 + bias
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


def test_deform_conv_offset_moves_the_sample(rng):
    # A shift by whole pixels, y before x.
    x = rand(1, 1, 8, 9, rng=rng)
    layer = ops.DeformConv2d(1, 1, 1).to(x)
    torch.nn.init.ones_(layer.weight)
    offset = x.new_tensor([1.0, 2.0])[None, :, None, None].expand(1, 2, 8, 9).contiguous()
    torch.testing.assert_close(layer(x, offset)[0, 0, :7, :7], x[0, 0, 1:, 2:])


def reference_deform_conv(x, offset, mask, layer):
    """The definition by plain torch: bilinear samples, 0 where a coordinate is <= -1 or >= size.

    The derivative by a coordinate is that of the pixels that its floor and the next one give.
    """
    (n, c, *size), (*_, height, width) = x.shape, offset.shape
    (kh, kw), groups, dg = layer.kernel_size, layer.groups, layer.deform_groups
    offset, mask = (
        offset.view(n, dg, kh, kw, 2, height, width),
        mask.view(n, dg, kh, kw, height, width),
    )
    columns = []
    for g in range(dg):
        image = x[:, g * c // dg : (g + 1) * c // dg]
        for i, j in ((i, j) for i in range(kh) for j in range(kw)):
            starts = [
                torch.arange(count, device=DEVICE) * layer.stride[a]
                - layer.padding[a]
                + (i, j)[a] * layer.dilation[a]
                for a, count in ((0, height), (1, width))
            ]
            y = starts[0][:, None] + offset[:, g, i, j, 0]
            z = starts[1] + offset[:, g, i, j, 1]
            inside = (y > -1) & (y < size[0]) & (z > -1) & (z < size[1])
            value = 0
            for down, along in ((0, 0), (0, 1), (1, 0), (1, 1)):
                row, column = y.detach().floor() + down, z.detach().floor() + along
                weight = (y - row + 1 if down else row + 1 - y) * (
                    z - column + 1 if along else column + 1 - z
                )
                real = inside & (row >= 0) & (row < size[0]) & (column >= 0) & (column < size[1])
                place = row.clamp(0, size[0] - 1) * size[1] + column.clamp(0, size[1] - 1)
                index = place.long().flatten(1)[:, None].expand(-1, image.size(1), -1)
                pixel = image.flatten(2).gather(2, index).view(n, -1, height, width)
                value = value + pixel * (weight * real)[:, None]
            columns.append(value * mask[:, g, i, j, None])
    columns = torch.stack(columns).view(dg, kh * kw, n, c // dg, height, width)
    columns = columns.permute(2, 0, 3, 1, 4, 5).reshape(n, groups, c // groups * kh * kw, -1)
    weight = layer.weight.view(groups, layer.out_channels // groups, -1)
    out = torch.einsum('ngkp,gok->ngop', columns, weight).reshape(n, -1, height, width)
    bias = getattr(layer, 'bias', None)
    return out if bias is None else out + bias[:, None, None]


OFFSETS = {
    'zero': torch.zeros_like,
    'whole': lambda offset: torch.randint_like(offset, -8, 9),  # reaches -1 and the size exactly
    'half': lambda offset: torch.randint_like(offset, -16, 17) / 2,
    'any': lambda offset: 3 * torch.randn_like(offset),
}


@pytest.mark.parametrize('geometry', [*GEOMETRIES, {'kernel_size': 2, 'stride': 3, 'padding': 2}])
@pytest.mark.parametrize('kind', OFFSETS)
@pytest.mark.parametrize('version', [1, 2])
def test_deform_conv_and_its_gradients_are_the_definition(version, kind, geometry, rng):
    x = rand(4, 4, 6, 7, rng=rng).requires_grad_()
    layer_type = ops.DeformConv2d if version == 1 else ops.ModulatedDeformConv2d
    layer = layer_type(4, 8, **geometry).to(x)
    layer.im2col_step = 2  # of v1: two passes
    _, offset, mask = output_and_offset(layer, x, rng, zero=False)
    offset = OFFSETS[kind](offset).requires_grad_()
    mask = (mask if version == 2 else torch.ones_like(mask)).requires_grad_()
    got = layer(x, offset, mask) if version == 2 else layer(x, offset)
    expected = reference_deform_conv(x, offset, mask, layer)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    inputs = [x, offset, *layer.parameters(), *[mask] * (version == 2)]
    assert_all_close(gradients(got, inputs), gradients(expected, inputs), 1e-11)


@pytest.mark.parametrize('pack', [ops.DeformConv2dPack, ops.ModulatedDeformConv2dPack])
def test_zero_offsets_have_no_slope_one_pixel_outside(pack):
    # Equal rows 1, 2, 3. The first row and column of samples are at -1; the slope of y is that from
    # the last row down to 0, or with the slope from -1 up to the first row, nought.
    layer = pack(1, 1, kernel_size=(2, 2), padding=1, bias=False).to(DEVICE)
    torch.nn.init.ones_(layer.weight)
    x = torch.tensor([1.0, 2.0, 3.0], device=DEVICE).expand(1, 1, 3, 3)
    layer(x).sum().backward()
    mask = 0.5 if pack is ops.ModulatedDeformConv2dPack else 1.0
    want = mask * torch.tensor([[-14.0, -8.0], [0.0, 0.0]], device=DEVICE)
    assert torch.equal(layer.conv_offset.weight.grad[0, 0], want)


@ours_only
def test_offsets_of_a_larger_level_are_read_from_their_start(rng):
    # As DyHead and GLIP have it; of each sample the first elements, as if of the output's size.
    layer = ops.ModulatedDeformConv2d(2, 3, 3, padding=1).double().to(DEVICE)
    x = rand(2, 2, 4, 5, rng=rng).requires_grad_()
    both = (rand(2, 27, 7, 9, rng=rng) - 0.5).requires_grad_()  # of which each is a slice
    offset, mask = both[:, :18], both[:, 18:]
    got = layer(x, offset, mask)
    size = (4, 5)
    cut = [t.reshape(2, -1)[:, : n * 20].reshape(2, n, *size) for t, n in ((offset, 18), (mask, 9))]
    expected = reference_deform_conv(x, *cut, layer)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    inputs = [x, both, *layer.parameters()]
    assert_all_close(gradients(got, inputs), gradients(expected, inputs), 1e-11)
    with pytest.raises(ValueError, match=r'offsets or masks of \(18, 4, 5\).*got \(18, 3, 5\)'):
        layer(x, offset[:, :, :3, :5], mask)


@ours_only
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_deform_conv_is_the_fp32_one_rounded(dtype, rng):
    layer = ops.ModulatedDeformConv2d(4, 4, 3, padding=1).to(DEVICE)
    x, offset, mask = (rand(2, c, 5, 5, rng=rng).to(dtype) for c in (4, 18, 9))
    layer = layer.to(dtype)
    got = layer(x, offset, mask)
    assert got.dtype == dtype
    assert torch.equal(got, layer.float()(x.float(), offset.float(), mask.float()).to(dtype))


@pytest.mark.slow  # the neck itself takes seconds to import
def test_dyhead_trains():
    necks = pytest.importorskip('mmdet.models.necks')
    neck = necks.DyHead(8, 16, num_blocks=2).to(DEVICE)
    levels = [torch.rand(2, 8, size, size, device=DEVICE) for size in (16, 8, 4)]
    outputs = neck(levels)
    assert [tuple(out.shape) for out in outputs] == [(2, 16, s, s) for s in (16, 8, 4)]
    sum(out.square().sum() for out in outputs).backward()
    grad = neck.dyhead_blocks[0].spatial_conv_offset.weight.grad
    assert grad.isfinite().all()
    assert grad.abs().sum() > 0


@ours_only
@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_offsets_of_nan_give_nan_where_they_are_read(geometry, rng):
    # torchvision's kernel would end the process.
    x = rand(2, 4, 6, 7, rng=rng).requires_grad_()
    for kind in (ops.DeformConv2d, ops.ModulatedDeformConv2d):
        layer = kind(4, 8, **geometry).to(x)
        _, offset, mask = output_and_offset(layer, x, rng, zero=False)
        sampling = (offset, mask) if kind is ops.ModulatedDeformConv2d else (offset,)
        expected = layer(x, *sampling).detach()
        offset[1, -1, 2, 3] = torch.nan
        expected[1, :, 2, 3] = torch.nan
        got = layer(x, *(tensor.requires_grad_() for tensor in sampling))
        torch.testing.assert_close(got, expected, equal_nan=True)
        grads = torch.autograd.grad(got.sum(), (x, *sampling, layer.weight))
        assert not any(grad.isfinite().all() for grad in grads)
        assert grads[0][0].isfinite().all(), 'the other image'
