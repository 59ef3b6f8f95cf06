"""Rows of batch noise differ in the noise, the decay and nothing else."""

import pytest

from tests.configs.loading import load
from tests.configs.rows_batch_noise import (
    CLASSIFIERS,
    DETECTORS,
    FULL,
    classifier,
    detector,
    on_coco,
)
from tests.configs.scales import differences

NORM = 'model.backbone.norm_cfg.'
TYPES = {'BatchNorm2d': 'BN', 'GroupNorm': 'GN'}


def decay(cfg):
    """M of the gamma decay, which has the theory's strength."""
    hooks = [hook for hook in cfg.custom_hooks if hook.type == 'GammaDecayHook']
    assert all(set(hook) == {'type', 'samples'} for hook in hooks)
    return hooks[0].samples if hooks else None


@pytest.mark.parametrize('row', CLASSIFIERS)
def test_classifiers(row):
    norm, arguments, samples = CLASSIFIERS[row]
    cfg = load(classifier(row))
    assert cfg.model.backbone.norm_cfg == dict(type=TYPES.get(norm, norm), **arguments)
    assert decay(cfg) == samples
    # ρ of drawn noise is estimated, as often and of as many batches as that of the decay.
    drawn = [hook for hook in cfg.custom_hooks if hook.type == 'PopulationHook']
    assert drawn == (
        [dict(type='PopulationHook', interval=100, num_batches=8)] if 'synth' in row else []
    )
    found = differences(load(classifier('bn')), cfg)
    found -= {'custom_hooks'} if samples or drawn else set()
    assert all(key.startswith(NORM) for key in found), found
    assert cfg.train_dataloader.batch_size == 128
    assert cfg.train_dataloader.drop_last


def test_a_logged_loss_is_the_mean_of_an_epoch_of_all_classes():
    cfg = load(classifier('bn'))
    indices = cfg.train_dataloader.dataset.indices
    iterations = len(indices) // cfg.train_dataloader.batch_size
    assert cfg.default_hooks.logger.interval == cfg.log_processor.window_size == iterations
    # 320 pictures of each class, one class after the other.
    assert {sum(index // 320 == label for index in indices) for label in range(10)} == {160}
    warmup, cosine = cfg.param_scheduler
    assert (warmup.end, cosine.T_max) == (50, iterations * cfg.train_cfg.max_epochs)


@pytest.mark.parametrize(('row', 'images'), DETECTORS)
def test_detectors_are_bns_but_for_the_norm_and_the_decay(row, images):
    samples, cfg = DETECTORS[row, images], load(detector(row, images))
    bn = load(detector('bn', images).replace('batch-noise', 'whitening'))
    assert decay(cfg) == samples
    assert differences(bn, cfg) == {NORM + 'type', *({'custom_hooks'} if samples else ())}
    assert cfg.model.backbone.norm_cfg == dict(type='PN', requires_grad=True)


def test_rows_on_coco_are_trained_bns_but_for_the_norm_and_the_decay():
    frozen, bn = load('faster_rcnn/faster-rcnn_r50_fpn_frozen-bn_1x_coco.py'), on_coco('bn', 2)
    assert differences(frozen, load(bn)) == {NORM + 'requires_grad', 'model.backbone.norm_eval'}
    for row, images in DETECTORS:
        samples, cfg = DETECTORS[row, images], load(on_coco(row, images))
        assert decay(cfg) == samples
        found = differences(load(on_coco('bn', images)), cfg)
        assert found == {NORM + 'type', *({'custom_hooks'} if samples else ())}
    one_image = {'train_dataloader.batch_size', 'optim_wrapper.optimizer.lr'}
    one_image.add('auto_scale_lr.base_batch_size')
    assert differences(load(bn), load(on_coco('bn', 1))) == one_image


@pytest.mark.parametrize('row', FULL)
def test_full_scale_is_bns_but_for_the_norm_and_the_decay(row):
    cfg, bn = load(FULL[row]), load(FULL['pn'].replace('_pn_', '_bn_'))
    samples = {'pn': None, 'pn-decay': 32}[row]
    assert decay(cfg) == samples
    assert differences(bn, cfg) == {NORM + 'type', *({'custom_hooks'} if samples else ())}
