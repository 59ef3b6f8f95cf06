"""A model that needs an operator of mmcv that is missing is refused before it trains."""

import importlib
import re

import pytest
from mmengine.config import Config
from torch import nn

from normplug.compat import mmcv_ext
from normplug.launch import UserError
from normplug.preflight.operators import check_operators

pytest.importorskip('mmcv')
mmcv_ext.install()
ops = importlib.import_module('mmcv.ops')

pytestmark = pytest.mark.skipif(
    mmcv_ext.compiled_extension() is not None, reason='mmcv has a compiled _ext'
)


class Extractor(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer


def config(model, **more):
    return Config({'default_scope': 'mmengine', 'model': model, **more})


def refused(model, cfg, phases, *messages):
    with pytest.raises(UserError, match='.*'.join(map(re.escape, messages))):
        check_operators(model, cfg, phases)


def test_a_layer_is_named_by_its_own_key_or_by_that_of_what_has_it():
    model = nn.Sequential(Extractor(ops.RoIAlignRotated((2, 2), 1.0, 0)))
    own = {'head': {'type': 'Extractor', 'roi_layer': {'type': 'RoIAlignRotated'}}}
    needs = 'RoIAlignRotated needs roi_align_rotated_backward, roi_align_rotated_forward'
    refused(model, config(own), ('train',), f'model.head.roi_layer: {needs}')
    refused(model, config({'head': {'type': 'Extractor'}}), ('test',), f'model.head: {needs}')
    refused(model, config({}), ('train',), f'model (0.layer): {needs}')


def test_layers_whose_operators_are_there_pass():
    layers = [ops.CARAFE(3, 1, 2), ops.DeformConv2dPack(2, 2, 1), ops.RoIAlign(2)]
    layers += [ops.DeformRoIPoolPack((2, 2), 2), ops.FusedBiasLeakyReLU(2)]  # on this CPU
    check_operators(nn.Sequential(*layers), config({}), ('train', 'val'))


def test_a_function_that_a_backbone_calls():
    pytest.importorskip('mmaction')
    from mmaction.models import ResNetTIN

    model = nn.Sequential(ResNetTIN(50, num_segments=8))
    needs = 'ResNetTIN needs tin_shift_backward, tin_shift_forward of mmcv.ops'
    refused(model, config({'backbone': {'type': 'ResNetTIN'}}), ('train',), needs)


NMS = {'test_cfg': {'rcnn': {'nms': {'type': 'nms_rotated', 'iou_thr': 0.1}}}}


def test_a_kind_of_nms_is_refused_where_it_will_run():
    message = 'model.test_cfg.rcnn.nms.type: nms_rotated needs nms_rotated of mmcv.ops'
    refused(nn.Identity(), config(NMS, val_cfg={'type': 'ValLoop'}), ('train', 'val'), message)
    refused(nn.Identity(), config(NMS), ('test',), message)
    check_operators(nn.Identity(), config(NMS), ('train', 'val'))  # nothing validates
    function = {'test_cfg': {'nms': {'type': ops.nms_rotated}}}  # in a config of classes
    message = 'model.test_cfg.nms.type: nms_rotated needs nms_rotated of mmcv.ops'
    refused(nn.Identity(), config(function), ('test',), message)
    in_training = {'train_cfg': {'rpn_proposal': NMS['test_cfg']['rcnn']}}
    refused(nn.Identity(), config(in_training), ('train', 'val'), 'model.train_cfg.rpn_proposal')


@pytest.mark.parametrize('name', ['nms', 'soft_nms', 'mine', ops.nms])
def test_other_kinds_of_nms_pass(name):
    check_operators(nn.Identity(), config({'test_cfg': {'nms': {'type': name}}}), ('test',))
