"""Norms by pattern: what is replaced, what it keeps, what is refused."""

import logging
import re
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from torch import nn

from normplug.models import place_norms
from normplug.norms import IBN, SN, PortableSyncBN
from tests.mm.norm_layers import build, image, norm_layers, resnet

DOCUMENT = Path(__file__).parents[2] / 'docs' / 'placement.md'
BACKBONE = {'type': 'ResNet', 'depth': 18, 'base_channels': 8, 'stem_channels': 8}
MODEL = {
    'mmdet': {
        'type': 'RetinaNet',
        'backbone': {**BACKBONE, 'norm_cfg': {'type': 'BN'}, 'frozen_stages': 1},
        'neck': {'type': 'FPN', 'in_channels': [8, 16, 32, 64], 'out_channels': 8, 'num_outs': 5},
        'bbox_head': {
            'type': 'RetinaSepBNHead',
            'num_classes': 2,
            'in_channels': 8,
            'feat_channels': 8,
            'num_ins': 5,
            'stacked_convs': 1,
            'norm_cfg': {'type': 'BN'},
            'anchor_generator': {
                'type': 'AnchorGenerator',
                'ratios': [1.0],
                'scales': [4],
                'strides': [4, 8, 16, 32, 64],
            },
            'bbox_coder': {'type': 'DeltaXYWHBBoxCoder'},
        },
    },
    'mmseg': {
        'type': 'EncoderDecoder',
        'backbone': {**BACKBONE, 'norm_cfg': {'type': 'BN'}},
        'decode_head': {
            'type': 'FCNHead',
            'in_channels': 64,
            'in_index': 3,
            'channels': 8,
            'num_classes': 2,
            'norm_cfg': {'type': 'BN'},
        },
    },
    'mmpretrain': {
        'type': 'ImageClassifier',
        'backbone': {**BACKBONE, 'norm_cfg': {'type': 'BN'}},
        'neck': {'type': 'GlobalAveragePooling'},
        'head': {'type': 'LinearClsHead', 'num_classes': 2, 'in_channels': 64},
    },
}
IBN_IN_NORM1 = {'where': 'backbone.layer[1-3].*.bn1', 'norm_cfg': {'type': 'IBN'}}


def placed(scope, *norms):
    model = dict(MODEL[scope])
    return {**model, 'type': 'NormPlacement', 'model_type': model['type'], 'norms': list(norms)}


@pytest.mark.parametrize('scope', MODEL)
def test_a_config_changes_the_norms_and_nothing_else(scope):
    plain = build(MODEL[scope], scope)
    model = build(placed(scope, IBN_IN_NORM1), scope)
    assert type(model) is type(plain)
    assert model.state_dict().keys() == plain.state_dict().keys()
    want = norm_layers(plain)
    want |= {f'backbone.layer{i}.{j}.bn1': 'IBN' for i in (1, 2, 3) for j in (0, 1)}
    assert norm_layers(model) == want
    # A whole model's checkpoint loads by name; what IBN takes of a BN is tested with IBN.
    model.load_state_dict(plain.state_dict())


def test_the_runner_and_overrides_reach_the_model():
    """mmengine's Runner adds data_preprocessor; a child config or --cfg-options adds the rest."""
    cfg = Config({'model': placed('mmseg', IBN_IN_NORM1)})
    cfg.merge_from_dict({'model.backbone.depth': 34, 'model.decode_head.num_classes': 5})
    cfg.model.setdefault('data_preprocessor', {'type': 'SegDataPreProcessor', 'size': (32, 32)})
    assert isinstance(cfg.model, ConfigDict)
    model = build(cfg.model, 'mmseg')
    assert len(model.backbone.layer1) == 3
    assert model.decode_head.num_classes == 5
    assert type(model.data_preprocessor).__name__ == 'SegDataPreProcessor'


def test_a_part_of_a_model_in_another_scope():
    backbone = {**BACKBONE, 'type': 'NormPlacement', 'model_type': 'mmpretrain.ResNet'}
    backbone['norms'] = [{'where': 'layer4.*', 'norm_cfg': {'type': 'SN'}}]
    backbone['out_indices'] = (0, 1, 2, 3)
    model = build({**MODEL['mmseg'], 'backbone': backbone}, 'mmseg')
    assert type(model.backbone).__module__.startswith('mmpretrain')
    assert Counter(norm_layers(model.backbone).values()) == {'SN': 5, 'BatchNorm2d': 15}


def test_frozen_parts_stay_frozen():
    model = build(
        placed(
            'mmdet',
            {'where': 'backbone.*.bn?', 'norm_cfg': {'type': 'SN'}},
            {'where': 'backbone.*downsample.1', 'norm_cfg': {'type': 'GN', 'num_groups': 4}},
        ),
        'mmdet',
    )
    for training in (None, True):  # as built, when DDP and the optimizer see it, and in training
        if training:
            model.train()
        for name, layer in model.backbone.named_modules():
            if isinstance(layer, (SN, nn.GroupNorm)):
                frozen = name.startswith('layer1.')
                assert layer.training == (not frozen), name
                assert {p.requires_grad for p in layer.parameters()} == {not frozen}, name


def test_explicitly_frozen():
    norms = {'where': 'backbone.*', 'norm_cfg': {'type': 'PortableSyncBN', 'frozen': True}}
    model = build(placed('mmseg', norms), 'mmseg')
    frozen = [m for m in model.backbone.modules() if isinstance(m, PortableSyncBN)]
    assert len(frozen) == 20
    assert not any(list(layer.parameters()) for layer in frozen)
    before = {name: buffer.clone() for name, buffer in model.backbone.named_buffers()}
    model.train()
    model.backbone(image(2, 32))
    for name, buffer in model.backbone.named_buffers():
        assert torch.equal(buffer, before[name]), name


class ChannelsFirst(nn.LayerNorm):
    """As mm's LayerNorm2d."""

    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def test_channels_device_and_dtype_are_those_of_the_old_layer():
    model = nn.Sequential(
        nn.BatchNorm2d(2),
        nn.GroupNorm(2, 4),
        ChannelsFirst(6),
        nn.InstanceNorm2d(8),
        SN(10),
        nn.BatchNorm2d(12, device='meta'),
    )
    model.double()
    place_norms(model, [{'where': '*', 'norm_cfg': {'type': 'IBN'}}])
    assert [layer.num_features for layer in model] == [2, 4, 6, 8, 10, 12]
    assert {type(layer) for layer in model} == {IBN}
    assert [layer.weight.device.type for layer in model] == ['cpu'] * 5 + ['meta']
    dtypes = [layer.running_mean.dtype for layer in model]
    assert dtypes == [torch.float64] * 3 + [torch.float32] + [torch.float64] * 2  # nothing to tell
    assert [layer.num_batches_tracked.dtype for layer in model] == [torch.int64] * 6


def test_a_shared_layer_is_replaced_at_all_its_names():
    norm = nn.BatchNorm2d(4)
    model = nn.ModuleDict({'a': nn.Sequential(norm), 'b': nn.Sequential(norm)})
    place_norms(model, [{'where': 'b.*', 'norm_cfg': {'type': 'SN'}}])
    assert isinstance(model['a'][0], SN)
    assert model['a'][0] is model['b'][0]


def test_what_was_replaced_is_logged(monkeypatch):
    said = []
    monkeypatch.setattr('normplug.models.placement.print_log', lambda *args: said.append(args))
    place_norms(resnet({'type': 'BN'}, frozen_stages=1), [
        {'where': 'layer[12].0.bn1', 'norm_cfg': {'type': 'SN'}},
        {'where': 'layer4.*.downsample.1', 'norm_cfg': {'type': 'IBN'}},
    ])  # fmt: skip
    assert said == [
        (
            "norms at 'layer[12].0.bn1': 2 BatchNorm2d → SN (1 of requires_grad=False, which "
            'stays): layer1.0.bn1, layer2.0.bn1',
            'current',
            logging.INFO,
        ),
        (
            "norms at 'layer4.*.downsample.1': 1 BatchNorm2d → IBN: layer4.0.downsample.1",
            'current',
            logging.INFO,
        ),
    ]


SN_AT = {'norm_cfg': {'type': 'SN'}}


@pytest.mark.parametrize(
    ('norms', 'messages'),
    [
        (
            [{'where': 'layer[1-3].*.bn5', **SN_AT}],
            ["norms.0.where: 'layer[1-3].*.bn5' matches none of the 20 norm", 'such as layer'],
        ),
        (
            [{'where': 'layer1.*', **SN_AT}, {'where': '*.bn1', **SN_AT}],
            ["layer1.0.bn1 is matched by 'layer1.*' (norms.0) and '*.bn1' (norms.1)"],
        ),
        ([{'where': 'bn1', **SN_AT}, {'at': 'bn1', **SN_AT}], ['norms.1 must be a dict of two']),
        ([{'where': 'bn1', 'norm_cfg': {'num_groups': 2}}], ['norms.0 must be a dict of two']),
        ([{'where': 'bn1', 'norm_cfg': 'SN'}], ['norms.0 must be a dict of two']),
        ({'where': 'bn1', **SN_AT}, ["norms must be a list of dicts of 'where' and 'norm_cfg'"]),
        (3, ['norms must be a list of dicts', 'got 3']),
        (
            [{'where': 'layer1.*', **SN_AT}, {'where': 'layer2.*', 'norm_cfg': {'type': 'LN'}}],
            ['layer2.0.bn1 cannot become LN: LayerNorm normalizes the last axis, Batch'],
        ),
    ],
)  # fmt: skip
def test_bad_norms_leave_the_model_as_it_was(norms, messages):
    model = resnet({'type': 'BN'})
    before = norm_layers(model)
    with pytest.raises(ValueError, match=re.escape(messages[0])) as error:
        place_norms(model, norms)
    assert all(message in str(error.value) for message in messages)
    assert norm_layers(model) == before


def test_a_layer_norm_over_the_last_axis_is_no_place_for_sn():
    with pytest.raises(ValueError, match='LayerNorm normalizes the last axis, SN takes'):
        place_norms(nn.ModuleDict({'ln': nn.LayerNorm(4)}), [{'where': 'ln', **SN_AT}])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'model_type': None}, "type='NormPlacement' needs model_type"),
        (
            {'model_type': 'RetinaNat'},
            "model_type: mmdet has no type 'RetinaNat'; did you mean RetinaNet",
        ),
        ({'norms': []}, "type='NormPlacement' needs norms"),
        (
            {'norms': [{'where': 'neck.*', **SN_AT}]},
            "'neck.*' matches none of the 30 norm layers of the model",
        ),
    ],
)
def test_bad_placement(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build({**placed('mmdet', IBN_IN_NORM1), **change}, 'mmdet')


def test_the_documents_configs():
    blocks = re.findall(r'^```python\n(.*?)^```$', DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    found = []
    for block in blocks:
        cfg = Config.fromstring(block, '.py')
        cfg.model.update(data_preprocessor=cfg.get('data_preprocessor'), pretrained=None)
        if cfg.default_scope == 'mmdet':
            del cfg.model.pretrained
        norms = norm_layers(build(cfg.model, cfg.default_scope))
        found.append(Counter((name.split('.')[0], norm) for name, norm in norms.items()))
    fcn, ibn_a = found
    assert fcn == {
        ('backbone', 'PortableSyncBN'): 55,
        ('decode_head', 'SN'): 3,
        ('auxiliary_head', 'SN'): 1,
    }
    assert ibn_a == {('backbone', 'IBN'): 13, ('backbone', 'BatchNorm2d'): 40}


def test_the_rows_of_the_document():
    """Each pattern of its table, on the models that it is for."""
    wheres = re.findall(r"where='(backbone[^']+)'", DOCUMENT.read_text().split('## IBN-Net')[0])
    names = [
        [f'backbone.{name}' for name in norm_layers(resnet({'type': 'BN'}, 'mmseg', type=kind))]
        for kind in ('ResNet', 'ResNetV1c')
    ]
    counts = {
        where: [sum(fnmatchcase(n, where) for n in kind) for kind in names] for where in wheres
    }
    assert counts == {
        'backbone.*': [20, 22],
        'backbone.layer[1-3].*.bn1': [6, 6],
        'backbone.layer[1-3].*': [14, 14],
        'backbone.bn1': [1, 0],
        'backbone.stem.*': [0, 3],
        'backbone.*.downsample.*': [3, 3],
    }


def test_test_time_augmentation_wraps_the_placed_model():
    cfg = ConfigDict(
        type='SegTTAModel',
        module=placed('mmseg', IBN_IN_NORM1),
        data_preprocessor={'type': 'SegDataPreProcessor'},
    )
    assert 'IBN' in norm_layers(build(cfg, 'mmseg')).values()
