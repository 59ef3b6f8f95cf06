"""The rows of detection: initial weights, optimizer, hooks, and data at digits scale."""

import pytest

from normplug.norms import SN, BaseNorm
from tests.configs.loading import build, load
from tests.configs.rows_detection import EXPECTED, TWINS

DIGITS = list(TWINS.values())
ONE_IMAGE = [name for name in EXPECTED if '_b1_' in name]
PRETRAINED = {'frozen': 'bn', 'ibn': 'ibn-a'}


def row(name: str) -> str:
    return name.split('_fpn_')[1].split('-')[0]


@pytest.mark.parametrize('name', DIGITS)
def test_weights_at_digits_scale(name):
    """They come from the pretraining with the row's norm, of the same backbone."""
    backbone = load(name).model.backbone
    norm = PRETRAINED.get(row(name), row(name))
    # SN is without batch statistics there, and so is its pretraining.
    alone = norm == 'sn' and name in ONE_IMAGE
    pretrained = f'resnet18-w32_{norm}_{"32xb1" if alone else "1xb32"}_digits'
    assert backbone.init_cfg.type == 'Pretrained'
    assert backbone.init_cfg.prefix == 'backbone.'
    folder, file = backbone.init_cfg.checkpoint.removeprefix('work_dirs/').split('/')
    assert folder == pretrained
    pretraining = load(f'imagenet/{pretrained}.py')
    assert file == f'epoch_{pretraining.train_cfg.max_epochs}.pth'
    theirs = pretraining.model.backbone
    for key in ('type', 'depth', 'stem_channels', 'base_channels', 'ibn_cfg'):
        assert theirs.get(key) == backbone.get(key), key
    # `using_bn` decides how many ratios there are.
    for key in ('type', 'num_groups', 'using_bn'):
        assert norm_cfg(theirs).get(key) == norm_cfg(backbone).get(key), key


def norm_cfg(backbone):
    return backbone.get('norm_cfg', {'type': 'BN'})


@pytest.mark.parametrize(('full', 'digits'), TWINS.items())
def test_optimizer_of_the_twins(full, digits):
    full, digits = load(full), load(digits)
    for cfg in (full, digits):
        cfg.optim_wrapper.optimizer.lr = None
    assert full.optim_wrapper == digits.optim_wrapper
    # Drops at the same share of the training.
    drops = [cfg.param_scheduler[1] for cfg in (full, digits)]
    shares = [[milestone / drop.end for milestone in drop.milestones] for drop in drops]
    assert shares[0] == pytest.approx(shares[1])


@pytest.mark.parametrize('name', DIGITS)
def test_no_digit_is_mirrored(name):
    (flip,) = [s for s in load(name).train_dataloader.dataset.pipeline if s.type == 'RandomFlip']
    assert flip.prob == 0


@pytest.mark.parametrize('name', ONE_IMAGE)
def test_one_image_differs_from_two_in_batch_and_rate(name):
    one, two = load(name), load(name.replace('_b1_', '_'))
    assert (one.train_dataloader.batch_size, two.train_dataloader.batch_size) == (1, 2)
    assert two.optim_wrapper.optimizer.lr == 2 * one.optim_wrapper.optimizer.lr
    assert two.auto_scale_lr.base_batch_size == 2 * one.auto_scale_lr.base_batch_size
    assert one.train_cfg == two.train_cfg
    if one.param_scheduler[1].by_epoch:
        assert one.param_scheduler == two.param_scheduler
    else:
        assert one.param_scheduler[1].end == 2 * two.param_scheduler[1].end


@pytest.mark.parametrize('name', [name for name in ONE_IMAGE if '_sn-sn_' in name])
def test_sn_at_one_image_has_no_batch_statistics(name):
    layers = [m for m in build(load(name)).modules() if isinstance(m, SN)]
    assert len(layers) == sum(part['SN'] for part in EXPECTED[name].values())
    assert {layer.normalizers for layer in layers} == {('in', 'ln')}


@pytest.mark.parametrize('name', [name for name in EXPECTED if '_ssn-ssn_' in name])
def test_recipe_of_ssn(name):
    cfg = load(name)
    rates = cfg.optim_wrapper.paramwise_cfg
    assert (rates.ratio_lr_mult, rates.ratio_decay_mult) == (0.1, 0)
    hooks = {hook.type: hook for hook in cfg.custom_hooks}
    assert hooks['SSNRadiusHook'].get('end', 1) == 1
    assert hooks['RatioGradClipHook'].max_norm == 1


@pytest.mark.parametrize('name', EXPECTED)
def test_hooks_of_every_config_stay(name):
    types = [hook.type for hook in load(name).custom_hooks]
    assert types[:2] == ['SampleSeedHook', 'NonFiniteLossHook']
    assert ('KalmanLinkHook' in types) == ('_kn-kn_' in name)


@pytest.mark.parametrize('name', DIGITS)
def test_norms_of_heads_train_and_frozen_stages_do_not(name):
    model = build(load(name))
    model.train()
    for layer_name, layer in model.named_modules():
        if isinstance(layer, BaseNorm):
            frozen = layer_name.startswith(('backbone.bn1', 'backbone.layer1.'))
            assert layer.weight.requires_grad is not frozen, layer_name
