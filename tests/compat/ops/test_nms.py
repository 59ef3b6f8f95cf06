"""NMS, Soft-NMS, groups of suppressed boxes, overlaps."""

import math

import pytest
import torch

from tests.compat.ops.mmcv_operators import (
    DEVICE,
    ops,
    ours_only,
    rand,
    random_boxes,
)


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


def reference_soft_nms(boxes, scores, threshold, sigma, min_score, method, offset):
    left, kept = dict(enumerate(scores.tolist())), {}
    boxes = boxes.tolist()
    while left:
        best = max(left, key=left.get)
        kept[best] = left.pop(best)
        for i in list(left):
            overlap = iou(boxes[best], boxes[i], offset)[0]
            if method == 'gaussian':
                left[i] *= math.exp(-(overlap**2) / sigma)
            elif overlap >= threshold:
                left[i] *= 1 - overlap if method == 'linear' else 0
            if left[i] < min_score:
                del left[i]
    return kept


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_nms_is_the_definition(method, offset, rng):
    boxes, scores = random_boxes(80, rng, size=40.0), rand(80, rng=rng, dtype=torch.float32)
    dets, kept = ops.soft_nms(boxes, scores, 0.3, 0.4, 0.05, method, offset)
    expected = reference_soft_nms(boxes, scores, 0.3, 0.4, 0.05, method, offset)
    assert kept.tolist() == list(expected)
    assert kept.dtype == torch.long
    assert 0 < len(kept) < 80
    assert torch.equal(dets[:, :4], boxes[kept])
    want = torch.tensor(list(expected.values()), device=DEVICE)
    torch.testing.assert_close(dets[:, 4], want, rtol=1e-5, atol=1e-7)


def test_soft_nms_of_equal_scores_keeps_mmcv_s_order():
    # The last box moves to the place of the dropped second.
    boxes = torch.tensor([[0, 0, 9, 9], [0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]]).float()
    scores = torch.tensor([0.9, 0.8, 0.5, 0.5])
    assert ops.soft_nms(boxes, scores, 0.5, method='naive')[1].tolist() == [0, 3, 2]
    # A first box below min_score is kept all the same.
    assert ops.soft_nms(boxes[:1], scores[:1], min_score=1.0)[1].tolist() == [0]


def test_soft_nms_of_boxes_without_area_and_of_none():
    # The example in mmcv's docstring.
    boxes = torch.tensor([[4, 3, 5, 3], [4, 3, 5, 4]] + 4 * [[3, 1, 3, 1]]).float()
    scores = torch.tensor([0.9, 0.9, 0.5, 0.5, 0.4, 0.0])
    assert len(ops.soft_nms(boxes, scores, 0.6, 0.5)[1]) == 5
    for method in ('naive', 'linear', 'gaussian'):
        dets, kept = ops.soft_nms(boxes[:0], scores[:0], method=method)
        assert (dets.shape, kept.shape, kept.dtype) == ((0, 5), (0,), torch.long)


@ours_only
@pytest.mark.parametrize('dtype', [torch.float16, torch.float64])
def test_soft_nms_of_other_types(dtype, rng):
    boxes, scores = random_boxes(30, rng, size=20.0).to(dtype), rand(30, rng=rng).to(dtype)
    dets, kept = ops.soft_nms(boxes, scores)
    want_dets, want = ops.soft_nms(boxes.float(), scores.float())
    assert torch.equal(kept, want)
    assert dets.dtype == dtype
    torch.testing.assert_close(dets.float(), want_dets, rtol=1e-3, atol=1e-3)


def test_batched_soft_nms_keeps_classes_apart():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [1, 1, 11, 11]], device=DEVICE)
    scores = boxes.new_tensor([0.9, 0.8, 0.7]).requires_grad_()  # as of a head without no_grad
    labels = torch.tensor([0, 0, 1], device=DEVICE)
    cfg = {'type': 'soft_nms', 'iou_threshold': 0.5, 'min_score': 0.05}
    dets, kept = ops.batched_nms(boxes, scores, labels, cfg)
    assert kept.tolist() == [0, 2, 1]
    overlap = 81 / 119
    torch.testing.assert_close(dets[:, 4], scores.new_tensor([0.9, 0.7, 0.8 * (1 - overlap)]))


@pytest.mark.parametrize('threshold', [0.1, 0.4])
def test_nms_match_is_the_definition(threshold, rng):
    boxes, scores = random_boxes(60, rng, size=40.0), rand(60, rng=rng, dtype=torch.float32)
    left, expected = scores.argsort(descending=True).tolist(), []
    while left:
        best, *others = left
        expected.append([best])
        expected[-1] += [i for i in others if iou(boxes[best], boxes[i], 0)[0] >= threshold]
        left = [i for i in others if i not in expected[-1]]
    got = ops.nms_match(torch.cat((boxes, scores[:, None]), dim=1), threshold)
    assert [group.tolist() for group in got] == expected
    assert max(map(len, expected)) > 2


def test_nms_match_at_the_threshold_and_of_no_boxes():
    boxes = torch.tensor([[0.0, 0, 2, 1, 0.9], [1, 0, 2, 1, 0.8]])  # an IoU of one half
    assert [group.tolist() for group in ops.nms_match(boxes, 0.5)] == [[0, 1]]
    assert [group.tolist() for group in ops.nms_match(boxes, 0.51)] == [[0], [1]]
    assert [group.tolist() for group in ops.nms_match(boxes.numpy(), 0.5)] == [[0, 1]]
    assert ops.nms_match(boxes[:0], 0.5) == []
