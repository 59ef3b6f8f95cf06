"""What a layer of mmcv.ops needs of the compiled operators."""

import sys

import pytest

from normplug.compat.needed_operators import missing_operators
from tests.compat.ops.mmcv_operators import ops, ours_only

pytestmark = ours_only


@pytest.mark.parametrize(
    ('used', 'operators'),
    [
        (ops.RoIAlignRotated, {'roi_align_rotated_forward', 'roi_align_rotated_backward'}),
        # By border_align = BorderAlignFunction.apply.
        (ops.BorderAlign, {'border_align_forward', 'border_align_backward'}),
        (ops.nms_rotated, {'nms_rotated'}),
        # By another function: oriented_box_intersection_2d and its sort_indices.
        (ops.diff_iou_rotated_2d, {'diff_iou_rotated_sort_vertices_forward'}),
    ],
)
def test_what_is_missing_is_found_through_the_calls(used, operators):
    assert missing_operators(used, 'cpu') == operators


@pytest.mark.parametrize(
    'name',
    [
        'CARAFE',
        'CARAFEPack',
        'CornerPool',
        'CrissCrossAttention',
        'DeformConv2d',
        'DeformConv2dPack',
        'DeformRoIPoolPack',
        'MaskedConv2d',
        'ModulatedDeformConv2dPack',
        'ModulatedDeformRoIPoolPack',
        'MultiScaleDeformableAttention',
        'PSAMask',
        'RoIAlign',
        'RoIPool',
        'SAConv2d',
        'SigmoidFocalLoss',
        'batched_nms',
        'nms',
        'nms_match',
        'point_sample',
        'soft_nms',
    ],
)
@pytest.mark.parametrize('device', ['cpu', 'cuda'])
def test_what_the_models_use_is_there(name, device):
    assert missing_operators(getattr(ops, name), device) == set()


def test_plain_torch_for_the_case_at_hand_needs_none():
    assert missing_operators(ops.FusedBiasLeakyReLU, 'cuda') == {'fused_bias_leakyrelu'}
    assert missing_operators(ops.FusedBiasLeakyReLU, 'cpu') == set()
    assert 'sync_bn_forward_mean' in missing_operators(ops.SyncBatchNorm, 'cuda')
    assert missing_operators(ops.SyncBatchNorm, 'cuda', training=False) == set()


def test_a_compiled_ext_lacks_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmcv._ext', object())
    assert missing_operators(ops.RoIAlignRotated, 'cpu') == set()
