"""mmcv.ops on whatever `mmcv._ext` is here: torchvision's operators or a compiled one.

Where somebody has a compiled `_ext`, the parity tests below run against that instead, unchanged.
"""

import importlib
import importlib.machinery
import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from normplug.compat import mmcv_ext, operators

pytest.importorskip('mmcv')
torchvision = pytest.importorskip('torchvision')
mmcv_ext.install()
ops = importlib.import_module('mmcv.ops')  # not importorskip: a missing `_ext` is a failure

COMPILED = mmcv_ext.compiled_extension() is not None
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
# Sums of some hundred products of numbers of order one, in another order.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}

ours_only = pytest.mark.skipif(COMPILED, reason='mmcv has a compiled _ext')
not_compiled_for_cpu = pytest.mark.skipif(
    COMPILED and DEVICE == 'cpu', reason='compiled mmcv has this operator on the GPU only'
)


@pytest.fixture
def rng():
    return torch.Generator(device=DEVICE).manual_seed(0)


def rand(*shape, rng, dtype=torch.float64):
    return torch.rand(*shape, generator=rng, device=DEVICE, dtype=dtype)


def random_boxes(n, rng, size=100.0, dtype=torch.float32):
    start = rand(n, 2, rng=rng, dtype=dtype) * size
    return torch.cat((start, start + rand(n, 2, rng=rng, dtype=dtype) * size / 3), dim=1)


def iou(a, b, offset):
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + offset, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + offset, 0)
    areas = [(c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b)]
    return width * height / (sum(areas) - width * height), width * height / areas[0]


def reference_nms(boxes, scores, threshold, offset):
    kept = []
    boxes = boxes.tolist()
    for i in scores.argsort(descending=True).tolist():
        if all(iou(boxes[i], boxes[j], offset)[0] <= threshold for j in kept):
            kept.append(i)
    return kept


# --- nms and overlaps ---


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.1, 0.5, 0.7])
def test_nms_is_the_definition(threshold, offset, rng):
    boxes, scores = random_boxes(200, rng, size=40.0), rand(200, rng=rng, dtype=torch.float32)
    dets, kept = ops.nms(boxes, scores, threshold, offset=offset)
    assert kept.tolist() == reference_nms(boxes, scores, threshold, offset)
    assert 0 < len(kept) < 200
    assert torch.equal(dets, torch.cat((boxes[kept], scores[kept, None]), dim=1))


def test_nms_offset_decides_a_pair():
    # Two unit squares a pixel apart: no overlap, or a third of the union with one pixel added.
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 2.0, 1.0]], device=DEVICE)
    scores = torch.tensor([0.9, 0.8], device=DEVICE)
    assert ops.nms(boxes, scores, 0.3, offset=0)[1].tolist() == [0, 1]
    assert ops.nms(boxes, scores, 0.3, offset=1)[1].tolist() == [0]


def test_nms_does_not_change_its_input(rng):
    boxes, scores = random_boxes(20, rng), rand(20, rng=rng, dtype=torch.float32)
    before = boxes.clone()
    ops.nms(boxes, scores, 0.5, offset=1)
    assert torch.equal(boxes, before)


@pytest.mark.parametrize('split_thr', [10000, 1])
def test_batched_nms_keeps_classes_apart(split_thr, rng):
    boxes, scores = random_boxes(90, rng, size=30.0), rand(90, rng=rng, dtype=torch.float32)
    labels = torch.arange(90, device=DEVICE) % 3
    cfg = {'type': 'nms', 'iou_threshold': 0.4, 'split_thr': split_thr}
    dets, kept = ops.batched_nms(boxes, scores, labels, cfg)
    expected = []
    for label in range(3):
        own = (labels == label).nonzero()[:, 0]
        expected += own[reference_nms(boxes[own], scores[own], 0.4, 0)].tolist()
    assert sorted(kept.tolist()) == sorted(expected)
    assert (dets[:, 4].diff() <= 0).all()
    assert len(kept) > len(reference_nms(boxes, scores, 0.4, 0))


def test_nms_of_no_boxes():
    dets, kept = ops.nms(
        torch.zeros(0, 4, device=DEVICE), torch.zeros(0, device=DEVICE), iou_threshold=0.5
    )
    assert dets.shape == (0, 5)
    assert kept.shape == (0,)
    assert kept.dtype == torch.long


@ours_only
@pytest.mark.parametrize('box_type', [torch.float16, torch.bfloat16, torch.float32])
def test_nms_of_half_scores_and_boxes(box_type, rng):
    boxes, scores = random_boxes(50, rng).to(box_type), rand(50, rng=rng).half()
    scores = scores.unique()  # ties would leave the order open
    kept = ops.nms(boxes[: len(scores)], scores, 0.3)[1]
    expected = reference_nms(boxes[: len(scores)].double(), scores.double(), 0.3, 0)
    assert kept.tolist() == expected


@pytest.mark.parametrize('mode', ['iou', 'iof'])
@pytest.mark.parametrize('offset', [0, 1])
def test_bbox_overlaps_is_the_definition(mode, offset, rng):
    first, second = random_boxes(7, rng), random_boxes(5, rng)
    got = ops.bbox_overlaps(first, second, mode=mode, offset=offset)
    index = ['iou', 'iof'].index(mode)
    expected = [[iou(a, b, offset)[index] for b in second.tolist()] for a in first.tolist()]
    torch.testing.assert_close(got.cpu(), torch.tensor(expected), rtol=1e-5, atol=1e-6)
    assert got.max() > 0
    aligned = ops.bbox_overlaps(first[:5], second, mode=mode, offset=offset, aligned=True)
    assert torch.equal(aligned, got.diagonal())


def test_bbox_overlaps_of_no_boxes():
    empty, one = torch.zeros(0, 4, device=DEVICE), torch.ones(1, 4, device=DEVICE)
    assert ops.bbox_overlaps(empty, one).shape == (0, 1)


# --- RoIAlign and RoIPool ---


def random_rois(k, batch, rng, size, dtype):
    index = torch.arange(k, device=DEVICE, dtype=dtype)[:, None] % batch
    return torch.cat((index, random_boxes(k, rng, size, dtype)), dim=1)


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
    'layer', [ops.RoIAlign(2), pytest.param(ops.RoIPool(2), marks=not_compiled_for_cpu)]
)
def test_no_rois_give_no_features_and_a_zero_gradient(layer, rng):
    x = rand(2, 3, 5, 5, rng=rng, dtype=torch.float32).requires_grad_()
    out = layer(x, torch.zeros(0, 5, device=DEVICE))
    assert out.shape == (0, 3, 2, 2)
    out.sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


@ours_only
@pytest.mark.parametrize('layer', [ops.RoIAlign(2, 0.5), ops.RoIPool(2, 0.5)])
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


@ours_only
def test_roi_align_max_is_refused(rng):
    x = rand(1, 1, 4, 4, rng=rng)
    with pytest.raises(NotImplementedError, match=r"pool_mode='max'.*Set pool_mode='avg'"):
        ops.RoIAlign(2, pool_mode='max')(x, x.new_zeros(1, 5))


# --- deformable convolutions ---

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


# --- focal loss ---


def focal_formula(x, target, gamma, alpha):
    p = x.sigmoid()
    one_hot = F.one_hot(target, x.size(1) + 1)[:, :-1].to(x)
    pt = p * one_hot + (1 - p) * (1 - one_hot)
    balance = alpha * one_hot + (1 - alpha) * (1 - one_hot)
    return -balance * (1 - pt) ** gamma * pt.log()


@not_compiled_for_cpu
@pytest.mark.parametrize(('gamma', 'alpha'), [(2.0, 0.25), (0.0, 0.5), (1.5, 0.9)])
def test_focal_loss_is_the_formula(gamma, alpha, rng):
    x = (4 * rand(9, 5, rng=rng) - 2).requires_grad_()
    target = torch.arange(9, device=DEVICE) % 6  # 5 is the background
    got = ops.sigmoid_focal_loss(x, target, gamma, alpha, None, 'none')
    expected = focal_formula(x, target, gamma, alpha)
    # The compiled kernel takes exp in fp32 whatever the type.
    tolerance = {'rtol': 0, 'atol': 1e-6 if COMPILED else 1e-14}
    torch.testing.assert_close(got, expected, **tolerance)
    upstream = rand(9, 5, rng=rng)
    (got_grad,) = torch.autograd.grad(got, x, upstream)
    (expected_grad,) = torch.autograd.grad(expected, x, upstream)
    torch.testing.assert_close(got_grad, expected_grad, **tolerance)
    mean = ops.sigmoid_focal_loss(x, target, gamma, alpha)
    torch.testing.assert_close(mean, expected.sum() / 9, rtol=0, atol=1e-6)


@not_compiled_for_cpu
def test_focal_loss_class_weights(rng):
    x = (4 * rand(6, 3, rng=rng) - 2).requires_grad_()
    target, weight = torch.arange(6, device=DEVICE) % 3, x.new_tensor([1.0, 0.5, 3.0])
    got = ops.sigmoid_focal_loss(x, target, 2.0, 0.25, weight, 'sum')
    expected = (focal_formula(x, target, 2.0, 0.25) * weight[target][:, None]).sum()
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)
    grads = [torch.autograd.grad(loss, x)[0] for loss in (got, expected)]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-6)


@ours_only
def test_focal_loss_gradcheck_and_weighted_background(rng):
    x = rand(4, 3, rng=rng).requires_grad_()
    target = torch.tensor([0, 1, 2, 3], device=DEVICE)
    assert torch.autograd.gradcheck(
        lambda x: ops.sigmoid_focal_loss(x, target, 2.0, 0.25, None, 'sum'), x
    )
    with pytest.raises(ValueError, match=r'every target in \[0, 3\)'):
        ops.sigmoid_focal_loss(x, target, 2.0, 0.25, x.new_ones(3), 'sum')


@ours_only
def test_focal_loss_is_finite_at_certain_logits():
    x = torch.tensor([[-200.0, 200.0]], device=DEVICE).requires_grad_()
    target = torch.tensor([0], device=DEVICE)
    loss = ops.sigmoid_focal_loss(x, target, 2.0, 0.25, None, 'sum')
    torch.testing.assert_close(loss, loss.new_tensor(0.25 * 200 + 0.75 * 200))
    (grad,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(grad, grad.new_tensor([[-0.25, 0.75]]))


@not_compiled_for_cpu
def test_focal_loss_is_mmdet_s(rng):
    focal_loss = pytest.importorskip('mmdet.models.losses.focal_loss')
    x = (6 * rand(8, 4, rng=rng) - 3).requires_grad_()
    target, weight = torch.arange(8, device=DEVICE) % 5, rand(8, rng=rng)
    one_hot = F.one_hot(target, 5)[:, :4]
    got = focal_loss.sigmoid_focal_loss(x, target, weight, avg_factor=3.0)
    expected = focal_loss.py_sigmoid_focal_loss(x, one_hot, weight, avg_factor=3.0)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    grads = [torch.autograd.grad(loss, x)[0] for loss in (got, expected)]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-6)


# --- the module itself ---


@ours_only
def test_what_torchvision_lacks_raises_when_called(rng):
    boxes = random_boxes(3, rng)
    with pytest.raises(NotImplementedError, match=r"operator 'softnms'.*MMCV_WITH_OPS=1"):
        ops.soft_nms(boxes, boxes[:, 0])
    with pytest.raises(AttributeError, match='__path__'):
        _ = sys.modules['mmcv._ext'].__path__


@ours_only
def test_mmcv_s_environment_report_works():
    assert ops.get_compiler_version() == 'none (operators from torchvision)'


@pytest.fixture
def fake_mmcv(tmp_path, monkeypatch):
    """An importable folder `mmcv` that fails when imported; no `mmcv._ext` loaded."""
    package = tmp_path / 'mmcv'
    package.mkdir()
    (package / '__init__.py').write_text('raise AssertionError("mmcv was imported")\n')
    monkeypatch.syspath_prepend(tmp_path)
    for name in ('mmcv', 'mmcv._ext'):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return package


def test_install_fills_the_gap_without_importing_mmcv(fake_mmcv):
    assert mmcv_ext.compiled_extension() is None
    mmcv_ext.install()
    ext = sys.modules.pop('mmcv._ext')
    assert isinstance(ext, mmcv_ext.TorchvisionExt)
    assert ext.nms is operators.nms
    assert 'mmcv' not in sys.modules


def test_a_compiled_ext_is_left_alone(fake_mmcv):
    library = fake_mmcv / f'_ext{importlib.machinery.EXTENSION_SUFFIXES[0]}'
    library.touch()
    assert mmcv_ext.compiled_extension() == str(library)
    mmcv_ext.install()
    assert 'mmcv._ext' not in sys.modules


def test_a_loaded_ext_is_left_alone(fake_mmcv, monkeypatch):
    loaded = object()
    monkeypatch.setitem(sys.modules, 'mmcv._ext', loaded)
    mmcv_ext.install()
    assert sys.modules['mmcv._ext'] is loaded


def test_nothing_happens_without_mmcv(fake_mmcv, monkeypatch):
    monkeypatch.setattr(mmcv_ext.importlib.util, 'find_spec', lambda name: None)
    assert mmcv_ext.compiled_extension() is None
    mmcv_ext.install()
    assert 'mmcv._ext' not in sys.modules


def test_a_missing_torchvision_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torchvision', None)
    with pytest.raises(RuntimeError, match=r'belongs to torch.*python -m normplug'):
        operators.torchvision_ops()


@pytest.mark.slow
@ours_only
def test_mmcv_ops_imports_in_a_fresh_process():
    code = (
        'import sys; from normplug.compat import mmcv_ext; mmcv_ext.install();'
        'assert not {"mmcv", "torchvision"} & set(sys.modules); import mmcv.ops;'
        'assert "torchvision" not in sys.modules; print(mmcv.ops.nms.__name__)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, 'nms'), done.stderr
