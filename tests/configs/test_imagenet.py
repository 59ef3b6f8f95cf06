"""The recipes of the ImageNet rows, and the head with dropout that they need."""

from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope

import normplug  # noqa: F401
from tests.configs.rows_classification import BATCHES, EXPECTED, full_scale

pytest.importorskip('mmpretrain')

CONFIGS = Path(__file__).parents[2] / 'configs'
FULL = [name for name in EXPECTED if name.endswith('_imagenet.py')]
DIGITS = [name for name in EXPECTED if name.endswith('_digits.py')]


@cache
def load(name):
    """The config, shared by the tests: not to be changed."""
    return Config.fromfile(CONFIGS / name)


def norm_of(name):
    return name.split('_')[1]


def batch_of(name):
    return tuple(map(int, name.split('_')[2].split('xb')))


def types(pipeline):
    return [transform.type for transform in pipeline]


def build(cfg):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(cfg)


@pytest.mark.parametrize('name', FULL)
def test_schedule_and_decay(name):
    cfg = load(name)
    assert cfg.train_cfg.max_epochs == 100
    assert cfg.param_scheduler.milestones == [30, 60, 90]
    assert (cfg.param_scheduler.type, cfg.param_scheduler.gamma) == ('MultiStepLR', 0.1)
    assert cfg.param_scheduler.by_epoch
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.momentum, optimizer.weight_decay) == ('SGD', 0.9, 1e-4)
    # The decay reaches every parameter, but SSN's logits.
    ratios = {'ratio_lr_mult': 0.1, 'ratio_decay_mult': 0.0}
    assert cfg.optim_wrapper.get('paramwise_cfg', {}) == (ratios if norm_of(name) == 'ssn' else {})
    assert cfg.optim_wrapper.get('clip_grad') is None


@pytest.mark.parametrize('name', FULL)
def test_rate_is_linear_in_the_batch(name):
    cfg = load(name)
    gpus, images = batch_of(name)
    total = gpus * images
    assert cfg.optim_wrapper.optimizer.lr == 0.1 * total / 256
    # mmengine scales the rate by the real batch over this one: by 1 for the row as it is.
    assert cfg.auto_scale_lr.base_batch_size == total
    if (gpus, images) == (64, 4):  # 8 GPUs, statistics over parts of a batch
        assert cfg.train_dataloader.batch_size == 32
        assert cfg.model.backbone.norm_cfg.virtual_batch_size == 4
        assert cfg.train_dataloader.drop_last
    else:
        assert cfg.train_dataloader.batch_size == images
        assert 'virtual_batch_size' not in cfg.model.backbone.norm_cfg


@pytest.mark.parametrize('name', FULL)
def test_pictures(name):
    cfg = load(name)
    extra = {'sn': ['Lighting'], 'ssn': ['ColorJitter', 'Lighting']}.get(norm_of(name), [])
    train = cfg.train_dataloader.dataset
    assert (train.type, train.data_root, train.split) == ('ImageNet', 'data/imagenet', 'train')
    assert types(train.pipeline) == [
        *('LoadImageFromFile', 'RandomResizedCrop', 'RandomFlip'),
        *(*extra, 'PackInputs'),
    ]
    assert train.pipeline[1] == dict(type='RandomResizedCrop', scale=224)
    assert train.pipeline[2] == dict(type='RandomFlip', prob=0.5, direction='horizontal')
    for transform in train.pipeline:
        if transform.type == 'Lighting':
            assert transform.alphastd == 0.1
        if transform.type == 'ColorJitter':
            assert (transform.brightness, transform.contrast, transform.saturation) == (0.4,) * 3
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        _, resize, crop, _ = loader.dataset.pipeline
        assert loader.dataset.split == 'val'
        assert resize == dict(type='ResizeEdge', scale=256, edge='short')
        assert crop == dict(type='CenterCrop', crop_size=224)
    preprocessor = cfg.data_preprocessor
    assert preprocessor.mean == [123.675, 116.28, 103.53]
    assert preprocessor.std == [58.395, 57.12, 57.375]
    assert preprocessor.to_rgb


@pytest.mark.parametrize('name', FULL)
def test_hooks(name):
    hooks = {hook.type: hook for hook in load(name).custom_hooks}
    own = {'SampleSeedHook', 'NonFiniteLossHook'}
    if norm_of(name) not in ('sn', 'ssn'):
        assert set(hooks) == own
        return
    is_ssn = norm_of(name) == 'ssn'
    ratios = {'SSNRadiusHook', 'RatioGradClipHook'} if is_ssn else set()
    assert set(hooks) == own | {'SwitchRecipeHook'} | ratios
    if is_ssn:
        assert hooks['RatioGradClipHook'].max_norm == 1.0
        assert hooks['SSNRadiusHook'] == dict(type='SSNRadiusHook')  # to 1, over all iterations
    (switch,) = hooks['SwitchRecipeHook'].schedule
    assert switch.action_epoch == 96  # of 1 to 100: the last 5
    crop = 'RandomCrop' if is_ssn else 'CenterCrop'
    assert types(switch.train_pipeline) == [
        *('LoadImageFromFile', 'ResizeEdge', crop, 'RandomFlip', 'PackInputs')
    ]
    assert switch.train_pipeline[1].scale == 256
    assert switch.train_pipeline[2].crop_size == 224


@pytest.mark.parametrize('name', FULL)
def test_network(name):
    cfg = load(name)
    backbone, head = cfg.model.backbone, cfg.model.head
    assert backbone.depth == (101 if 'resnet101' in name else 50)
    assert (backbone.style, backbone.zero_init_residual) == ('pytorch', True)
    is_switchable = norm_of(name) in ('sn', 'ssn')
    assert head.get('dropout_rate', 0) == (0.5 if is_switchable else 0)
    # SN at 1 image: IN and LN only.
    without_bn = (norm_of(name), batch_of(name)[1]) == ('sn', 1)
    assert backbone.norm_cfg.get('using_bn', True) is not without_bn
    # Of the running statistics: SSN's code keeps 0.997, SN's 0.9.
    assert backbone.norm_cfg.get('momentum', 0.1) == (0.003 if norm_of(name) == 'ssn' else 0.1)


@pytest.mark.parametrize(
    'name', [full_scale(norm, batches[0]) for norm, batches in BATCHES.items()]
)
def test_last_gamma_starts_at_zero(name):
    # In a smaller network, which is initialized alike.
    cfg = deepcopy(load(name).model)
    cfg.backbone.update(depth=18, stem_channels=32, base_channels=32)
    model = build(cfg.backbone)
    model.init_weights()
    for block in (model.layer1[0], model.layer4[1]):
        assert block.norm2.weight.eq(0).all()
        assert block.norm1.weight.eq(1).all()


@pytest.mark.parametrize('name', DIGITS)
def test_digits_statistics(name):
    """One process with 32 images stands for any number of GPUs."""
    cfg = load(name)
    gpus, images = batch_of(name)
    assert gpus * images == cfg.train_dataloader.batch_size == 32
    norm_cfg = cfg.model.backbone.norm_cfg
    if (norm_of(name), images) == ('sn', 1):  # IN and LN are of each image
        assert norm_cfg == dict(type='SN', using_bn=False)
    else:
        assert norm_cfg.get('virtual_batch_size', 32) == images
        assert 'using_bn' not in norm_cfg
    flips = [t.prob for t in cfg.train_dataloader.dataset.pipeline if t.type == 'RandomFlip']
    assert flips == [0]


def test_dropout_head():
    cfg = deepcopy(load('imagenet/resnet50_sn_8xb32_imagenet.py').model.head)
    cfg.update(num_classes=1000, in_channels=1000)
    head = build(cfg)
    head.fc.weight.data.copy_(torch.eye(1000))
    head.fc.bias.data.zero_()
    feats = (torch.ones(2, 1000),)
    assert torch.equal(head.eval()(feats), feats[0])
    torch.manual_seed(0)
    scores = head.train()(feats)
    assert set(scores.unique().tolist()) == {0, 2}
    # Half of 2000, with a standard deviation of 22, and others for each image.
    assert abs(scores.eq(0).sum().item() - 1000) < 130
    assert not torch.equal(scores[0], scores[1])


def test_lighting_is_that_of_rgb_and_wraps_none():
    """mmpretrain's transform on bytes would turn 255 + 1 into 0."""
    pipeline = load('imagenet/resnet50_sn_8xb32_imagenet.py').train_dataloader.dataset.pipeline
    (lighting,) = (t for t in pipeline if t.type == 'Lighting')
    assert pipeline[0].to_float32
    usual = [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        ours = TRANSFORMS.build(dict(lighting))
        rgb = TRANSFORMS.build(dict(lighting, eigvec=usual, to_rgb=True))
    picture = np.full((4, 4, 3), (250, 100, 50), dtype=np.float32)  # BGR, as it is read
    shifted = []
    for transform in (ours, rgb):
        np.random.seed(0)
        shifted.append(transform(dict(img=picture))['img'])
    assert np.allclose(shifted[0], shifted[1][..., ::-1], atol=1e-3)
    assert 1 < np.abs(shifted[0] - picture).max() < 50
