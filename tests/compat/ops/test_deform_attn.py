"""Multi-scale deformable attention, as mmcv calls it for tensors on a GPU."""

import pytest
import torch

from tests.compat.ops.mmcv_operators import (
    DEVICE,
    assert_all_close,
    gradients,
    not_compiled_for_cpu,
    ops,
    ours_only,
    rand,
)

pytestmark = not_compiled_for_cpu

attention = ops.multi_scale_deform_attn  # the module

SHAPES = [(4, 8), (2, 4), (1, 2)]
STARTS = [0, 32, 40]


def attend(value, places, weights, starts=STARTS):
    levels = torch.tensor(SHAPES, device=DEVICE), torch.tensor(starts, device=DEVICE)
    operator = attention.MultiScaleDeformableAttnFunction
    return operator.apply(value, *levels, places, weights, 64)


def inputs(rng):
    value, weights = rand(2, 42, 3, 4, rng=rng), rand(2, 5, 3, 3, 2, rng=rng)
    places = 1.6 * rand(2, 5, 3, 3, 2, 2, rng=rng) - 0.3  # some outside
    return [tensor.requires_grad_() for tensor in (value, places, weights)]


def reference(value, places, weights):
    """Equation 3 of the paper in loops."""
    out = torch.zeros(2, 5, 3, 4, dtype=value.dtype, device=DEVICE)
    for n, q, m, level, p in torch.cartesian_prod(*map(torch.arange, weights.shape)).tolist():
        (height, width), start = SHAPES[level], STARTS[level]
        x, y = places[n, q, m, level, p] * places.new_tensor([width, height]) - 0.5
        for row in range(height):
            for column in range(width):
                near = (1 - (y - row).abs()).clamp(min=0) * (1 - (x - column).abs()).clamp(min=0)
                pixel = value[n, start + row * width + column, m]
                out[n, q, m] += weights[n, q, m, level, p] * near * pixel
    return out.flatten(2)


def test_attention_is_the_equation(rng):
    tensors = inputs(rng)
    got = attend(*tensors)
    with torch.no_grad():
        torch.testing.assert_close(got, reference(*tensors), rtol=0, atol=1e-12)
    expected = attention.multi_scale_deformable_attn_pytorch(
        tensors[0], torch.tensor(SHAPES, device=DEVICE), *tensors[1:]
    )
    assert_all_close(gradients(got, tensors), gradients(expected, tensors), 1e-12)
    assert torch.autograd.gradcheck(attend, tensors, fast_mode=True)


def test_levels_begin_where_it_is_told(rng):
    value, places, weights = inputs(rng)
    order = torch.cat((value[:, 32:], value[:, :32]), dim=1)
    got = attend(order, places, weights, starts=[10, 0, 8])
    torch.testing.assert_close(got, attend(value, places, weights), rtol=0, atol=1e-12)


def test_a_sample_at_minus_one_has_no_slope(rng):
    value, places, weights = inputs(rng)
    sizes = torch.tensor(SHAPES, dtype=places.dtype, device=DEVICE).flip(1)[:, None]
    with torch.no_grad():
        places.copy_((torch.tensor([2.0, 1.0], device=DEVICE) + 0.5) / sizes)
        places[0, 0, 0, 0, 0, 0] = -0.5 / 8  # x = -1
        places[0, 1, 0, 0, 0, 1] = -0.5 / 4  # y = -1
    grad = gradients(attend(value, places, weights), [places])[0]
    assert grad[0, 0, 0, 0, 0].tolist() == grad[0, 1, 0, 0, 0].tolist() == [0, 0]
    assert (grad[1, :, :, 0] != 0).all()


@ours_only
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_attention_is_the_fp32_one_rounded(dtype, rng):
    value, places, weights = (tensor.detach().to(dtype) for tensor in inputs(rng))
    got = attend(value.requires_grad_(), places.float(), weights)
    assert got.dtype == dtype
    assert torch.equal(got, attend(value.float(), places.float(), weights.float()).to(dtype))
    assert gradients(got, [value])[0].dtype == dtype


def test_no_queries(rng):
    value, places, weights = inputs(rng)
    assert attend(value, places[:, :0], weights[:, :0]).shape == (2, 0, 12)
