"""LabelStrideFCNHead: the loss on every k-th label."""

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from torch.nn import functional as F

import normplug  # noqa: F401  before mmseg, which imports mmcv's compiled operators

pytest.importorskip('mmseg')
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules


def build(**options):
    register_all_modules(init_default_scope=False)
    return MODELS.build(
        dict(
            type='LabelStrideFCNHead',
            in_channels=4,
            channels=8,
            num_classes=5,
            in_index=0,
            num_convs=1,
            concat_input=False,
            dropout_ratio=0.0,
            loss_decode=dict(type='mmseg.CrossEntropyLoss'),
            norm_cfg=dict(type='SN'),
            **options,
        )
    )


def samples(*labels):
    return [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in labels]


def test_loss_is_the_cross_entropy_at_the_resolution_of_the_logits():
    torch.manual_seed(0)
    head = build(label_stride=8)
    labels = torch.randint(0, 5, (2, 24, 40))
    labels[0, :16] = 255  # the ignored
    logits = torch.randn(2, 5, 3, 5, requires_grad=True)
    loss = head.loss_by_feat(logits, samples(*labels))['loss_ce']
    # The nearest label, as torch finds it.
    small = F.interpolate(labels[:, None].float(), size=(3, 5), mode='nearest')[:, 0].long()
    per_pixel = F.cross_entropy(logits, small, ignore_index=255, reduction='none')
    torch.testing.assert_close(loss, per_pixel.mean())  # mmseg divides by all pixels
    loss.backward()
    assert not logits.grad[0, :, :2].any()
    assert logits.grad[1].any()


def test_stride_1_is_mmsegs_head():
    torch.manual_seed(0)
    head = build(label_stride=1)
    labels = torch.randint(0, 5, (2, 24, 40))
    logits = torch.randn(2, 5, 3, 5)
    want = super(type(head), head)
    assert torch.equal(
        head.loss_by_feat(logits, samples(*labels))['loss_ce'],
        want.loss_by_feat(logits, samples(*labels))['loss_ce'],
    )
    assert torch.equal(
        head._stack_batch_gt(samples(*labels)), want._stack_batch_gt(samples(*labels))
    )


@pytest.mark.parametrize('stride', [0, -8, 2.0, None])
def test_bad_stride(stride):
    with pytest.raises(ValueError, match='label_stride must be a whole number from 1'):
        build(label_stride=stride)
