"""The rows of the league have one recipe, also where they change a config by options."""

import pytest
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from normplug.experiments.reproduce.tables import SEVERAL, TABLES
from normplug.norms import SN, BaseNorm
from normplug.norms.whitening import WhiteningNorm
from tests.configs.loading import build, load
from tests.configs.rows_league import BACKBONES, NETWORKS, digits, full
from tests.configs.rows_whitening import ONE_IMAGE
from tests.configs.scales import differences

HOOKS = {
    'kn': ['KalmanLinkHook'],
    'cbn': ['KalmanLinkHook'],
    'brn': ['BRNScheduleHook'],
    'ssn': ['SSNRadiusHook', 'RatioGradClipHook'],
}
# What a row may have of its own in the backbone.
OWN = {'type', 'model_type', 'norms', 'norm_cfg', 'conv_cfg', 'ibn_cfg', 'init_cfg'}
FROZEN = {'frozen_stages', 'norm_eval'}
# Detectron's weights of GN take other pixels.
PIXELS = {f'model.data_preprocessor.{key}' for key in ('mean', 'std', 'bgr_to_rgb')}
RATES = {'optim_wrapper.constructor', 'optim_wrapper.paramwise_cfg'}
RATES |= {f'optim_wrapper.paramwise_cfg.ratio_{what}_mult' for what in ('lr', 'decay')}
TABLE = dict(zip(NETWORKS, (TABLES[name] for name in SEVERAL['league']), strict=True))
# Blocks whose 3x3 convolution has it behind, beside the stem.
BLOCKS = [f'{stage}.{k}' for stage, n in enumerate((3, 4, 6, 3), start=1) for k in range(n)]
PLACES = {'iternorm': [], 'gw': BLOCKS}
PLACES['sw'] = ['1.1', '2.1', '2.3', '3.1', '3.3', '3.5']
# Types of all GPUs' statistics.
SYNC = [row for row in TABLE['faster_rcnn'].rows if row.real.variant == '_sync']


def rows(network, images):
    """Norm → row."""
    group = TABLE[network].rows
    return {row.name.split(',')[0]: row for row in group if row.group.split()[0] == str(images)}


def changed(name, scale):
    """A config with the options of a row."""
    cfg = load(name)
    cfg.merge_from_dict(dict(scale.options))
    return cfg


@pytest.mark.parametrize('config', [digits, full])
@pytest.mark.parametrize('network', NETWORKS)
@pytest.mark.parametrize('row', [row for row in BACKBONES if row != 'bn'])
def test_rows_differ_in_the_backbones_norms_alone(row, network, config):
    bn, other = load(config('bn', network)), load(config(row, network))
    found = differences(bn, other)
    backbone = {key for key in found if key.startswith('model.backbone.')}
    frozen = row == 'frozen-bn'
    assert {key.split('.')[2] for key in backbone} <= OWN | (FROZEN if frozen else set())
    allowed = PIXELS if (row, config) == ('gn', full) else RATES if row == 'ssn' else set()
    assert found - backbone <= allowed | {'custom_hooks'}
    added = [hook.type for hook in other.custom_hooks[len(bn.custom_hooks) :]]
    assert added == HOOKS.get(row, [])
    is_standardized = other.model.backbone.get('conv_cfg') == dict(type='ConvWS')
    assert is_standardized == (row in ('gn-ws', 'bcn'))
    stages, is_eval = (other.model.backbone.get(key) for key in sorted(FROZEN))
    assert (stages, is_eval) in ([(1, True)] if frozen else [(-1, False), (None, False)])


@pytest.mark.parametrize('network', NETWORKS)
@pytest.mark.parametrize('row', BACKBONES)
def test_rows_start_from_the_pretraining_of_their_backbone(row, network):
    ours = []
    for config in (digits, full):
        cfg = load(config(row, network))
        assert cfg.model.get('pretrained') is None
        checkpoint = cfg.model.backbone.init_cfg.checkpoint
        if checkpoint.startswith('work_dirs'):
            ours.append((cfg.model.backbone, *checkpoint.split('/')[1:]))
    assert ours
    for backbone, folder, file in ours:
        pretraining = load(f'imagenet/{folder}.py')
        assert file == f'epoch_{pretraining.train_cfg.max_epochs}.pth'
        assert backbone.init_cfg.prefix == 'backbone.'
        theirs = pretraining.model.backbone
        for key in ('type', 'norms', 'conv_cfg', 'ibn_cfg', 'depth'):
            assert theirs.get(key) == backbone.get(key), key
        norm = {
            **backbone.norm_cfg,
            'type': 'BN' if row in ('brn', 'cbn') else backbone.norm_cfg.type,
        }
        for key in ('type', 'num_groups', 'eps'):
            assert theirs.norm_cfg.get(key) == norm.get(key), key


@pytest.mark.parametrize(('row', 'blocks'), PLACES.items())
def test_whitening_stands_where_it_was_published(row, blocks):
    model = build(load(full(row, 'faster_rcnn')), values=False)
    layers = {n: m for n, m in model.backbone.named_modules() if isinstance(m, WhiteningNorm)}
    assert set(layers) == {'bn1', *(f'layer{block}.bn2' for block in blocks)}
    assert {layer.size for layer in layers.values()} == {16 if row == 'sw' else 64}


@pytest.mark.parametrize('network', NETWORKS)
def test_options_of_1_image_do_what_the_files_for_it_do(network):
    frn = rows(network, 1)['FRN']
    bn = digits('bn', network)
    assert differences(load(ONE_IMAGE[bn]), changed(bn, frn.digits)) == set()
    two, one = load(full('bn', network)), changed(full('bn', network), frn.real)
    if network == 'faster_rcnn':
        bn, in_file = (f'faster_rcnn/faster-rcnn_r50_fpn_bn_{b}1x_coco.py' for b in ('', 'b1_'))
        assert differences(load(in_file), changed(bn, frn.real)) == set()
        return
    assert one.train_dataloader.batch_size * 2 == two.train_dataloader.batch_size
    assert one.optim_wrapper.optimizer.lr * 2 == two.optim_wrapper.optimizer.lr
    assert one.auto_scale_lr.base_batch_size * 2 == two.auto_scale_lr.base_batch_size
    assert one.train_cfg.max_iters == one.param_scheduler[0].end == 2 * two.train_cfg.max_iters
    assert one.train_cfg.max_iters % one.train_cfg.val_interval == 0


@pytest.mark.parametrize('network', NETWORKS)
def test_16_images_of_the_digits_have_the_steps_of_2(network):
    bn = digits('bn', network)
    two, many = load(bn), changed(bn, rows(network, 16)['SyncBN'].digits)
    assert differences(two, many) <= {
        *('train_dataloader.batch_size', 'auto_scale_lr.base_batch_size'),
        *('train_cfg.max_epochs', 'train_cfg.val_interval', 'param_scheduler.1.T_max'),
    }
    assert many.train_dataloader.batch_size == many.auto_scale_lr.base_batch_size == 16
    if network == 'faster_rcnn':
        epochs = many.train_cfg.max_epochs
        assert epochs == 8 * two.train_cfg.max_epochs == many.train_cfg.val_interval
        assert many.param_scheduler[1].T_max == epochs


@pytest.mark.parametrize('row', SYNC, ids=[row.name for row in SYNC])
def test_16_images_at_full_scale_are_those_of_all_gpus(row):
    model = build(changed(f'{row.real.config}.py', row.real), values=False)
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm | BaseNorm)]
    assert len(layers) == 53
    for layer in layers:
        if isinstance(layer, _BatchNorm):
            assert isinstance(layer, nn.SyncBatchNorm)
        else:
            assert layer.synchronized or layer.batch_from is None
    assert any('Sync' in type(layer).__name__ for layer in layers)


@pytest.mark.parametrize('network', NETWORKS)
def test_nothing_is_trained_twice(network):
    two, one, many = (rows(network, images) for images in (2, 1, 16))
    # Without a batch 8 GPUs x 2 images are what 16 are.
    same = {norm for norm, row in many.items() if row.real == two.get(norm, many['GW']).real}
    assert same == {'frozen BN', 'GN', 'GN+WS', 'MABN', 'CBN', 'FRN'}
    assert 'SyncBN' not in {*one, *two}
    assert 'BN' not in many
    # What the tables of whitening have is theirs.
    kind = {'faster_rcnn': 'detection', 'fcn': 'segmentation'}[network]
    for row in TABLES[f'whitening-{kind}'].rows:
        if row.digits is not None:
            norm, images = row.name.split(', ')
            assert rows(network, images.split()[0])[norm].digits == row.digits


def test_sn_at_1_image_has_no_batch_statistics():
    row = rows('faster_rcnn', 1)['SN'].real
    model = build(changed(f'{row.config}.py', row), values=False)
    layers = [m for m in model.modules() if isinstance(m, SN)]
    assert {layer.normalizers for layer in layers} == {('in', 'ln')}
