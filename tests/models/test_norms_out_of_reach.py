"""Parts of mm that ignore norm_cfg, wholly or in places: the document's rows, and their remedy."""

import re
from pathlib import Path

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from normplug.norms import SN
from tests.mm.norm_layers import build

DOCUMENT = Path(__file__).parents[2] / 'docs' / 'placement.md'
SN_CFG = {'type': 'SN'}
LEVELS = {'in_channels': 16, 'out_channels': 16}


def maps(*sizes, channels=8):
    return [torch.randn(2, channels, size, size) for size in sizes]


IMAGE = torch.randn(2, 3, 64, 64)
CLIP = torch.randn(2, 3, 8, 32, 32)
CONV_2P1D = {'type': 'Conv2plus1d'}
HOURGLASS = {
    'downsample_times': 2,
    'num_stacks': 2,
    'stage_channels': [8, 8, 8],
    'stage_blocks': [1, 1, 1],
    'feat_channel': 8,
}
CORNER = {'num_classes': 2, 'in_channels': 8, 'num_feat_levels': 1}
BISENET = {
    'in_channels': 3,
    'spatial_channels': (8, 8, 8, 8),
    'context_channels': (8, 16, 32),
    'out_indices': (0, 1, 2),
    'out_channels': 16,
    'backbone_cfg': {
        'type': 'ResNet',
        'depth': 18,
        'base_channels': 4,
        'stem_channels': 4,
        'norm_cfg': SN_CFG,
    },
}
STDC = {
    'type': 'STDCNet',
    'stdc_type': 'STDCNet1',
    'in_channels': 3,
    'channels': (8, 8, 16, 16, 32),
    'bottleneck_type': 'cat',
    'num_convs': 4,
    'act_cfg': {'type': 'ReLU'},
    'norm_cfg': SN_CFG,
}
STDC_PATH = {
    'backbone_cfg': STDC,
    'last_in_channels': (32, 16),
    'out_channels': 8,
    'ffm_cfg': {'in_channels': 24, 'out_channels': 8, 'scale_factor': 4},
}
HRNET = {
    f'stage{i + 1}': {
        'num_modules': 1,
        'num_branches': i + 1,
        'block': 'BASIC' if i else 'BOTTLENECK',
        'num_blocks': (1,) * (i + 1),
        'num_channels': (4, 8, 16, 32)[: i + 1],
    }
    for i in range(4)
}

# Type, as in the document → scope, its arguments, inputs.
PARTS = {
    'BiSeNetV1': ('mmseg', BISENET, IMAGE),
    'BiSeNetV2': ('mmseg', {}, IMAGE),
    'DDRNet': ('mmseg', {}, IMAGE),
    'ERFNet': ('mmseg', {}, IMAGE),
    'PIDNet': ('mmseg', {}, IMAGE),
    'STDCContextPathNet': ('mmseg', STDC_PATH, IMAGE),
    'HourglassNet': ('mmdet', HOURGLASS, IMAGE),
    'CornerHead': ('mmdet', CORNER, maps(8)),
    'CentripetalHead': ('mmdet', CORNER, maps(8)),
    'CTResNetNeck': (
        'mmdet',
        dict(
            in_channels=8,
            num_deconv_filters=(8, 8, 8),
            num_deconv_kernels=(4, 4, 4),
            use_dcn=False,
        ),
        maps(8),
    ),
    'DyHead': ('mmdet', {**LEVELS, 'num_blocks': 1}, maps(8, channels=16)),
    'NASFCOS_FPN': (
        'mmdet',
        dict(in_channels=[8] * 4, out_channels=8, num_outs=5, start_level=1),
        maps(32, 16, 8, 4),
    ),
    'DilatedEncoder': (
        'mmdet',
        dict(
            in_channels=8,
            out_channels=8,
            block_mid_channels=4,
            num_residual_blocks=1,
            block_dilations=[2],
        ),
        maps(8),
    ),
    'Conformer': ('mmpretrain', {}, IMAGE),
    'InceptionV3': ('mmpretrain', {'num_classes': 2}, torch.randn(2, 3, 299, 299)),
    'MobileViT': ('mmpretrain', {'arch': 'xx_small'}, IMAGE),
    'TinyViT': ('mmpretrain', {}, torch.randn(2, 3, 224, 224)),
    'VAN': ('mmpretrain', {'arch': 'tiny'}, IMAGE),
    'HRNet': ('mmpretrain', {'extra': HRNET}, IMAGE),
    'HRFuseScales': (
        'mmpretrain',
        {'in_channels': (8, 16, 32, 64)},
        tuple(torch.randn(2, 8 * 2**i, 32 // 2**i, 32 // 2**i) for i in range(4)),
    ),
    'ResNet2Plus1d': (
        'mmaction',
        dict(depth=18, base_channels=8, pretrained=None, pretrained2d=False, conv_cfg=CONV_2P1D),
        CLIP,
    ),
    'TPN': (
        'mmaction',
        dict(
            in_channels=(32, 64),
            out_channels=32,
            spatial_modulation_cfg=dict(in_channels=(32, 64), out_channels=64),
            temporal_modulation_cfg=dict(downsample_scales=(2, 2)),
            upsample_cfg=dict(scale_factor=(1, 1, 1)),
            downsample_cfg=dict(downsample_scale=(1, 1, 1)),
            level_fusion_cfg=dict(
                in_channels=(32, 32),
                mid_channels=(32, 32),
                out_channels=32,
                downsample_scales=((1, 1, 1), (1, 1, 1)),
            ),
        ),
        (torch.randn(2, 32, 4, 8, 8), torch.randn(2, 64, 4, 4, 4)),
    ),
    'STGCN': (
        'mmaction',
        dict(graph_cfg=dict(layout='coco', mode='stgcn_spatial'), num_stages=2),
        torch.randn(2, 1, 8, 17, 3),
    ),
    'RepMLPNet': ('mmpretrain', dict(arch='B', img_size=64, reparam_conv_kernels=(1,)), IMAGE),
}

ROW = re.compile(r"^\| `(\w+)`(?: \((\w+)\))? \| .* \| `dict\(where='([^']+)'", re.MULTILINE)


def rows():
    """Type → (scope, pattern), of the document's table."""
    section = DOCUMENT.read_text().split('## Where `norm_cfg` does not reach')[1]
    return {kind: where for kind, _, where in ROW.findall(section)}


def left(model):
    """How many norms are not SN, layer norms of tokens aside."""
    return sum(isinstance(m, (_BatchNorm, torch.nn.GroupNorm)) for m in model.modules())


def test_the_document_lists_them():
    assert rows().keys() == PARTS.keys()


@pytest.mark.parametrize('kind', PARTS)
def test_a_part_that_norm_cfg_does_not_reach(kind):
    scope, options, inputs = PARTS[kind]
    cfg = {'type': kind, **options}
    try:
        plain = build({**cfg, 'norm_cfg': SN_CFG}, scope)
    except (TypeError, AssertionError) as error:  # it takes none
        if 'norm_cfg' not in str(error):
            raise
        plain = build(cfg, scope)
    assert left(plain)  # or the row can go
    # The document's pattern is that of a whole model.
    where = rows()[kind].split('.', 1)[1]
    norms = [{'where': where, 'norm_cfg': SN_CFG}]
    model = build({**cfg, 'type': 'NormPlacement', 'model_type': kind, 'norms': norms}, scope)
    model.train()
    assert left(model) == 0
    assert any(isinstance(m, SN) for m in model.modules())
    with torch.no_grad():
        model(inputs)
