"""The contract in mmaction2: its configs with only the norm changed, of 3D and of 2D networks."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope

from normplug import NORMS, get_backend, link_kalman, set_backend
from normplug.checkpoint_file import CheckpointError
from normplug.errors import UserError
from normplug.norms import KN
from normplug.preflight.pretrained import check_pretrained
from normplug.whitened import WNNConv
from tests.mm.norm_layers import (
    all_types,
    build,
    has_counted,
    norm_layers,
    own_layers,
    randomize,
)

pytest.importorskip('mmaction')

LEAF = """
_base_ = 'mmaction::recognition/{base}.py'
custom_imports = dict(imports=['normplug'])
model = dict(backbone=dict(norm_cfg=dict(type='{norm}'), pretrained=None))
"""
I3D = 'i3d/i3d_imagenet-pretrained-r50_8xb8-32x2x1-100e_kinetics400-rgb'
TSN = 'tsn/tsn_imagenet-pretrained-r50_8xb32-1x1x3-100e_kinetics400-rgb'
TSM = 'tsm/tsm_imagenet-pretrained-r50_8xb16-1x1x8-50e_kinetics400-rgb'
X3D = 'x3d/x3d_s_13x6x1_facebook-kinetics400-rgb'
SLOWFAST = 'slowfast/slowfast_r50_8xb8-4x16x1-256e_kinetics400-rgb'


@pytest.fixture(autouse=True)
def eager():
    """Nothing is compiled for a step or two."""
    before = get_backend()
    set_backend('eager')
    yield
    set_backend(before)


def leaf(tmp_path, base, norm):
    path = tmp_path / f'{norm.lower()}.py'
    path.write_text(LEAF.format(base=base, norm=norm))
    return Config.fromfile(path)


def model_of(cfg):
    return build(cfg.model, cfg.default_scope)


def resnet3d_layers(blocks=(3, 4, 6, 3), convs=3):
    names = {'backbone.conv1.bn'}
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            at = f'backbone.layer{stage}.{block}'
            names |= {f'{at}.conv{i + 1}.bn' for i in range(convs)}
        names.add(f'backbone.layer{stage}.0.downsample.bn')
    return names


@pytest.mark.parametrize('base', [I3D, TSN, TSM], ids=['i3d', 'tsn', 'tsm'])
def test_the_norm_is_where_the_batch_norm_was(base, tmp_path):
    model = model_of(leaf(tmp_path, base, 'SN'))
    names = {name.replace('.block.', '.').replace('.net.', '.') for name in norm_layers(model)}
    assert {name.replace('conv1.net', 'conv1') for name in names} == resnet3d_layers()
    assert set(norm_layers(model).values()) == {'SN'}


def small_i3d(norm_type, **options):
    backbone = dict(type='ResNet3d', depth=18, base_channels=8)
    # In a group of one channel the group norm of a BCN undoes the bias before it.
    groups = dict(num_groups=4) if norm_type.endswith('BCN') else {}
    backbone |= dict(norm_cfg=dict(type=norm_type, **groups), **options)
    head = dict(type='I3DHead', num_classes=3, in_channels=64, dropout_ratio=0)
    head['average_clips'] = 'prob'
    preprocessor = dict(type='ActionDataPreprocessor', format_shape='NCTHW')
    cfg = dict(
        type='Recognizer3D', backbone=backbone, cls_head=head, data_preprocessor=preprocessor
    )
    return build(cfg, 'mmaction')


def clips(*shape, seed=0):
    from mmaction.structures import ActionDataSample

    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return inputs, [ActionDataSample().set_gt_label(i % 3) for i in range(shape[0])]


def loss_of(model, *shape):
    return model.parse_losses(model(*clips(*shape), mode='loss'))[0]


def assert_learns(model, loss):
    loss.backward()
    for name, layer in own_layers(model).items():
        for key, parameter in layer.named_parameters():
            assert torch.isfinite(parameter.grad).all(), f'{name}.{key}'
            assert parameter.grad.abs().sum() > 0, f'{name}.{key}'


@all_types
def test_a_3d_recognizer_learns_and_predicts_over_clips(norm_type):
    model = randomize(small_i3d(norm_type, with_cp=norm_type != 'KN'))
    if NORMS[norm_type] is KN:
        model = small_i3d(norm_type)
        link_kalman(model, lambda: model(*clips(2, 1, 3, 8, 32, 32), mode='tensor'))
        model.train()
    loss = loss_of(model, 2, 1, 3, 8, 32, 32)
    assert_learns(model, loss)
    assert all(has_counted(layer, 1) for layer in own_layers(model).values())
    model.eval()
    inputs, samples = clips(2, 4, 3, 8, 32, 32)
    with torch.no_grad():
        scores = model(inputs, samples, mode='predict')
    want = torch.stack([own_scores(model, clip) for clip in inputs])
    got = torch.stack([sample.pred_score for sample in scores])
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def own_scores(model, views):
    """The mean of the probabilities of a video's clips, one after the other."""
    with torch.no_grad():
        maps = [model.backbone(clip[None]) for clip in views]
        return torch.stack([model.cls_head(x).softmax(1)[0] for x in maps]).mean(0)


def test_frozen_stages_and_norm_eval():
    model = randomize(small_i3d('SN', frozen_stages=1, norm_eval=True))
    for name, layer in own_layers(model).items():
        frozen = name.startswith(('backbone.conv1', 'backbone.layer1'))
        assert layer.training != frozen, name  # norm_eval is of batch norms alone
        assert all(p.requires_grad != frozen for p in layer.parameters()), name


X3D_TINY = dict(type='X3D', gamma_w=1, gamma_b=1, gamma_d=1, norm_cfg=dict(type='SN'))
PATH = dict(type='resnet3d', depth=18, norm_cfg=dict(type='SN'), conv1_kernel=(1, 7, 7))
SLOWFAST_TINY = dict(
    type='ResNet3dSlowFast',
    pretrained=None,
    channel_ratio=4,
    slow_pathway=dict(PATH, lateral=True, lateral_norm=True, pretrained=None, base_channels=16),
    fast_pathway=dict(PATH, lateral=False, base_channels=4, pretrained=None),
)
CSN_TINY = dict(type='ResNet3dCSN', depth=50, base_channels=8, pretrained=None, pretrained2d=False)
BACKBONES = {
    'X3D': X3D_TINY,
    'SlowFast': SLOWFAST_TINY,
    'CSN': dict(CSN_TINY, norm_cfg=dict(type='SN')),
}


@pytest.mark.parametrize('cfg', BACKBONES.values(), ids=BACKBONES)
def test_other_3d_backbones_learn(cfg):
    net = build(cfg, 'mmaction')
    net.init_weights()
    assert set(norm_layers(net).values()) == {'SN'}
    randomize(net)
    outputs = net(torch.randn(2, 3, 16, 32, 32))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert_learns(net, sum((y * (1 + y)).mean() for y in outputs))


@all_types
def test_the_constructor_of_tsm_takes_ours_as_norms(norm_type):
    """Each parameter once; norms without weight decay."""
    model = small_i3d(norm_type)
    cfg = dict(
        constructor='TSMOptimWrapperConstructor',
        paramwise_cfg=dict(fc_lr5=True),
        optimizer=dict(type='SGD', lr=1.0, weight_decay=0.1),
    )
    groups = groups_of(model, cfg)
    assert groups.keys() == {id(parameter) for parameter in model.parameters()}
    for layer in own_layers(model).values():
        for parameter in layer.parameters():
            assert groups[id(parameter)] == (1.0, 0)


def groups_of(model, cfg):
    """The id of each parameter → its learning rate and weight decay."""
    with DefaultScope.overwrite_default_scope('mmaction'):
        groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    found = [(id(p), (g['lr'], g['weight_decay'])) for g in groups for p in g['params']]
    assert len(dict(found)) == len(found)
    return dict(found)


def test_our_constructor_in_its_scope():
    model = small_i3d('SN')
    cfg = dict(
        constructor='NormOptimWrapperConstructor',
        paramwise_cfg=dict(norm_decay_mult=0.0, ratio_lr_mult=0.1, ratio_decay_mult=2.0),
        optimizer=dict(type='SGD', lr=1.0, weight_decay=0.1),
    )
    groups = groups_of(model, cfg)
    for layer in own_layers(model).values():
        assert groups[id(layer.weight)] == (1.0, 0.0)
        assert groups[id(layer.mean_weight)] == pytest.approx((0.1, 0.2))
    assert groups[id(model.cls_head.fc_cls.weight)] == (1.0, 0.1)


@pytest.mark.parametrize('content', [None, b'no checkpoint'], ids=['missing', 'broken'])
def test_a_pretrained_that_cannot_be_read_is_refused_by_its_key(content, tmp_path):
    path = tmp_path / '2d.pth'
    if content:
        path.write_bytes(content)
    model = small_i3d('SN', pretrained=str(path))
    with pytest.raises(UserError, match=r'model\.backbone\.pretrained.*2d\.pth'):
        check_pretrained(model)


def test_a_pretrained_of_whitened_layers_is_refused_by_its_key(tmp_path):
    """mmaction2 copies weights past the layers that would know."""
    path = tmp_path / '2d.pth'
    torch.save(torch.nn.Sequential(WNNConv(3, 4, 3)).state_dict(), path)
    model = small_i3d('SN', pretrained=str(path))
    with pytest.raises(UserError, match=r'model\.backbone\.pretrained: .*2d\.pth has whitened.*0'):
        check_pretrained(model)
    with pytest.raises(CheckpointError, match=r'2d\.pth has whitened weights'):
        model.backbone.init_weights()  # where nothing checks before
