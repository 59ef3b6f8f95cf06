"""Norms by pattern: what is replaced, what it keeps, what is refused."""

import logging
import re
from collections import Counter
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from torch import nn

from normplug.models import place_norms
from normplug.models.calls import check_calls
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
SN_AT = {'norm_cfg': {'type': 'SN'}}
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


class Keeping(nn.Module):
    """Two norms, and what `keep` makes of the first as a further attribute."""

    def __init__(self, keep):
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.__dict__['kept'] = keep(self.bn1)


KEPT = {
    'list': lambda norm: [None, norm],
    'tuple in a dict': lambda norm: {'stage': (3, norm)},
    'key': lambda norm: {norm: 'bn1'},
    'unregistered': lambda norm: norm,
    'module in a list': lambda norm: [nn.Sequential(nn.ReLU(), norm)],
    'method': lambda norm: norm.forward,
    'argument': lambda norm: partial(map, norm),
}


@pytest.mark.parametrize('how', KEPT)
def test_a_layer_that_an_attribute_keeps_is_refused(how):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Keeping(KEPT[how]))
    before = norm_layers(model)
    with pytest.raises(ValueError, match=r'layer 1\.bn1 cannot become SN: .* kept in 1\.kept too'):
        place_norms(model, [{'where': '*', **SN_AT}])
    assert norm_layers(model) == before
    place_norms(model, [{'where': '*.bn2', **SN_AT}])


def share(tensor, name):
    """A function that makes `name` of a module the first norm's `tensor`."""
    return lambda norms: setattr(norms[1], name, getattr(norms[0], tensor))


SHARED = {
    'parameter': (share('weight', 'weight'), 'weight with 1.weight'),
    'with what is no norm': (
        lambda norms: setattr(norms[2], 'bias', norms[0].bias),
        'bias with 2.bias',
    ),
    'buffer': (share('running_var', 'running_var'), 'running_var with 1.running_var'),
    'memory': (
        lambda norms: setattr(norms[1], 'weight', nn.Parameter(norms[0].weight.data)),
        'weight with 1.weight',
    ),
    'in a list': (lambda norms: setattr(norms, 'sparse', [norms[0].weight]), 'weight with sparse'),
}


@pytest.mark.parametrize('how', SHARED)
def test_a_layer_that_shares_a_tensor_is_refused(how):
    tie, message = SHARED[how]
    model = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
    tie(model)
    before = norm_layers(model)
    message = f'layer 0 cannot become SN: BatchNorm2d shares its {message}'
    with pytest.raises(ValueError, match=message):
        place_norms(model, [{'where': '*', **SN_AT}])
    assert norm_layers(model) == before


def test_tensors_without_memory_of_their_own_are_no_hindrance():
    model = nn.Sequential(nn.LazyConv2d(4, 1), nn.BatchNorm2d(4))
    model.register_buffer('graph', torch.eye(3).to_sparse())
    model.blocks = [model[1:]]  # made here, and holds the norm
    with pytest.raises(ValueError, match='kept in blocks too'):
        place_norms(model, [{'where': '1', **SN_AT}])
    model.blocks = [model]
    place_norms(model, [{'where': '1', **SN_AT}])
    assert isinstance(model[1], SN)


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


class Activated(nn.BatchNorm2d):
    """As timm's BatchNormAct2d."""

    def __init__(self, channels):
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(super().forward(x))


class AlwaysEvaluating(nn.BatchNorm2d):
    def train(self, mode=True):
        return super().train(False)


class SelfHooked(nn.BatchNorm2d):
    def __init__(self, channels):
        super().__init__(channels)
        self.register_forward_hook(self.after)

    def after(self, layer, args, y):
        return y.relu()


class RenamesItsState(nn.BatchNorm2d):
    """By the hook `kind`, as layers with two layouts of checkpoints do."""

    def __init__(self, channels, kind):
        super().__init__(channels)
        getattr(self, f'register_{kind}')(self.rename)

    def rename(self, *args):
        pass


class FloatLayerNorm(nn.LayerNorm):
    """As CLIP's."""

    def forward(self, x):
        return super().forward(x.float()).type_as(x)


class RectifiedLayerNorm(ChannelsFirst):
    def forward(self, x):
        return super().forward(x).relu()


class OwnSN(SN):
    def forward(self, x):
        return super().forward(x).relu()


def with_own_forward(layer):
    layer.forward = lambda x: x
    return layer


def with_buffer(layer):
    layer.register_buffer('usage', torch.zeros(()))
    return layer


IRREPLACEABLE = {
    'activation': (lambda: Activated(4), 'Activated has a forward of its own'),
    'mode': (lambda: AlwaysEvaluating(4), 'AlwaysEvaluating has a train of its own'),
    'hook of the layer': (lambda: SelfHooked(4), 'a hook that is its own method after'),
    **{
        kind: (partial(RenamesItsState, 4, kind), 'a hook that is its own method rename')
        for kind in (
            'state_dict_pre_hook',
            'load_state_dict_pre_hook',
            'load_state_dict_post_hook',
        )
    },
    'forward of an instance': (
        lambda: with_own_forward(nn.GroupNorm(2, 4)),
        'GroupNorm has a forward of its own, set on the instance',
    ),
    'buffer': (lambda: with_buffer(nn.BatchNorm2d(4)), 'BatchNorm2d has usage of its own'),
    'parametrization': (
        lambda: nn.utils.parametrizations.weight_norm(nn.BatchNorm2d(4), dim=None),
        'makes its weight anew',
    ),
    'weight norm': (
        lambda: nn.utils.weight_norm(nn.BatchNorm2d(4), dim=None),
        'BatchNorm2d makes its weight anew',
    ),
    'pruning': (
        lambda: nn.utils.prune.l1_unstructured(nn.BatchNorm2d(4), 'weight', 1),
        'BatchNorm2d makes its weight anew',
    ),
    'float32 tokens': (lambda: FloatLayerNorm(4), 'FloatLayerNorm normalizes the last axis'),
    'rectified layer norm': (lambda: RectifiedLayerNorm(4), 'that is no layer norm'),
    'several axes': (lambda: nn.LayerNorm((3, 4)), 'normalizes the last 2 axes'),
    'own SN': (lambda: OwnSN(4), 'OwnSN has a forward of its own'),
}


@pytest.mark.parametrize('name', IRREPLACEABLE)
def test_what_does_more_than_normalize_is_refused(name):
    make, message = IRREPLACEABLE[name]
    model = nn.ModuleDict({'plain': nn.BatchNorm2d(3), 'other': make()})
    before = norm_layers(model)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        place_norms(model, [{'where': '*', 'norm_cfg': {'type': 'IBN'}}])
    assert str(error.value).startswith('the norm layer other cannot become IBN')
    assert norm_layers(model) == before
    place_norms(model, [{'where': 'plain', 'norm_cfg': {'type': 'IBN'}}])


@pytest.mark.parametrize(
    ('where', 'kinds'),
    [
        ('mmpretrain.models.utils.sparse_modules', ('SparseBatchNorm2d', 'SparseSyncBatchNorm2d')),
        ('mmpretrain.models.utils.sparse_modules', ('SparseLayerNorm2D',)),
        ('mmpretrain.models.utils.clip_generator_helper', ('LayerNorm',)),
    ],
)
def test_norms_of_mm_that_do_more(where, kinds):
    module = pytest.importorskip(where)
    for kind in kinds:
        with pytest.raises(ValueError, match=f'cannot become SN: {kind} '):
            place_norms(nn.Sequential(getattr(module, kind)(4)), [{'where': '0', **SN_AT}])


def test_norms_of_mm_of_channels_first():
    mmpretrain = pytest.importorskip('mmpretrain.models')
    torchvision = pytest.importorskip('torchvision.models.convnext')
    synchronized = pytest.importorskip('mmengine.utils.dl_utils.parrots_wrapper').SyncBatchNorm
    model = nn.Sequential(
        mmpretrain.utils.LayerNorm2d(4),
        torchvision.LayerNorm2d(4),
        synchronized(4),
    )
    place_norms(model, [{'where': '*', **SN_AT}])
    assert {type(layer) for layer in model} == {SN}


def test_hooks_are_carried_over():
    model = nn.Sequential(nn.SyncBatchNorm(3, process_group='the group'))
    old, called = model[0], []
    handles = [
        old.register_forward_pre_hook(lambda layer, args: (2 * args[0],)),
        old.register_forward_hook(lambda layer, args, kwargs, y: y.relu(), with_kwargs=True),
        old.register_full_backward_hook(lambda layer, *_: called.append(('backward', layer))),
        old.register_load_state_dict_pre_hook(lambda layer, *_: called.append(('load', layer))),
        old.register_state_dict_post_hook(lambda layer, *_: called.append(('save', layer))),
        old.register_load_state_dict_post_hook(lambda layer, _: called.append(('loaded', layer))),
    ]
    place_norms(model, [{'where': '0', 'norm_cfg': {'type': 'PortableSyncBN'}}])
    new = model[0]
    assert new.process_group == 'the group'
    new.process_group = None
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    y = model.eval()(x)
    torch.testing.assert_close(y, 2 * x.relu() / (1 + new.eps) ** 0.5)
    y.sum().backward()
    model.load_state_dict(model.state_dict())
    assert set(called) == {(kind, new) for kind in ('backward', 'load', 'save', 'loaded')}
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(model(x), x / (1 + new.eps) ** 0.5)


def test_what_is_trained_is_told_by_parameter():
    layer = nn.BatchNorm2d(4)
    layer.bias.requires_grad_(False)
    model = nn.Sequential(layer)
    place_norms(model, [{'where': '0', **SN_AT}])
    trained = {name for name, p in model[0].named_parameters() if p.requires_grad}
    assert trained == {'weight', 'mean_weight', 'var_weight'}


def test_an_efficient_batch_norm_of_mmcv():
    """ConvModule computes its batch norm within the convolution: not any other norm."""
    from mmcv.cnn import ConvModule

    module = ConvModule(3, 4, 1, norm_cfg={'type': 'BN'}, efficient_conv_bn_eval=True).eval()
    place_norms(module, [{'where': 'bn', **SN_AT}])
    x = image(2, 8)
    torch.testing.assert_close(module(x), module.bn(module.conv(x)).relu())


CONVNEXT = {'type': 'ConvNeXt', 'arch': {'depths': [1, 1, 1, 1], 'channels': [8, 8, 16, 16]}}
CALL = 'calls its norm (stages.0.0.norm) with data_format=..., which SN does not take'


@pytest.mark.parametrize('pointwise', [True, False])
def test_a_norm_that_is_called_otherwise(pointwise):
    model = build({**CONVNEXT, 'linear_pw_conv': pointwise}, 'mmpretrain')
    with pytest.raises(ValueError, match='ConvNeXtBlock calls it with data_format') as error:
        place_norms(model, [{'where': 'stages.*', **SN_AT}])
    assert 'the norm layer stages.0.0.norm cannot become SN' in str(error.value)
    place_norms(model, [{'where': 'downsample_layers.*', **SN_AT}])
    model(image())
    check_calls(model)
    # mm's own way to the same layers:
    with pytest.raises(ValueError, match=re.escape(CALL)):
        check_calls(build({**CONVNEXT, 'norm_cfg': {'type': 'SN'}}, 'mmpretrain'))


class Calling(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.norm = SN(3)
        self.both = call


class CallsBoth(Calling):
    def forward(self, x):
        return self.norm(x, mask=None) if self.both else self.norm(x)


class CallsWhatIsGiven(Calling):
    def forward(self, x, *more, **options):
        return self.norm(x, *more, **options)


class CallsByKeyword(Calling):
    def forward(self, x):
        return self.norm(x=x)


def test_calls_that_can_work_are_not_refused():
    for kind in (CallsBoth, CallsWhatIsGiven, CallsByKeyword):
        model = kind(False)
        check_calls(model)
        model(image())


def test_a_frozen_batch_norm_is_named():
    torchvision = pytest.importorskip('torchvision')
    frozen = torchvision.ops.FrozenBatchNorm2d(4)
    with pytest.raises(ValueError, match=r'not replaced: FrozenBatchNorm2d \(at bn\)'):
        place_norms(nn.ModuleDict({'bn': frozen}), [{'where': 'bn', **SN_AT}])


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
    wheres = re.findall(r"where='(backbone[^']+)'", DOCUMENT.read_text().split('## Where')[0])
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


def test_a_model_that_torch_fx_made():
    model = torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    place_norms(model, [{'where': '1', 'norm_cfg': {'type': 'SN'}}])
    model(torch.randn(2, 3, 4, 4))
    assert model.get_submodule('1').num_batches_tracked == 1
